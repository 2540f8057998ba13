"""The runtime's persistent state: one JSON document for each resource, and metrics, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

Document = dict[str, Any]
Change = Callable[[Document], None]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    UNIQUE (kind, name)
);
CREATE TABLE IF NOT EXISTS metrics (
    job TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    timestamp REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS metrics_by_job ON metrics (job, name);
"""


class Metric(NamedTuple):
    """One value of a training job's metric; the timestamp is in epoch seconds."""

    name: str
    value: float
    timestamp: float


class DocumentExistsError(Exception):
    """`create` for a name that exists in the kind."""


class DocumentMissingError(Exception):
    """`update` for a name that does not exist in the kind."""


class Store:
    """Documents by (kind, name). Times in documents are epoch seconds. Safe to call from any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")  # commits survive the process
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def create(self, kind: str, name: str, body: Document) -> None:
        """Add a document. Raises DocumentExistsError."""
        try:
            with self._transaction() as connection:
                connection.execute(
                    "INSERT INTO documents (kind, name, body) VALUES (?, ?, ?)",
                    (kind, name, json.dumps(body)),
                )
        except sqlite3.IntegrityError as error:
            raise DocumentExistsError(f"{kind} {name!r} exists") from error

    def get(self, kind: str, name: str) -> Document | None:
        with self._lock:
            row = self._connection.execute(
                "SELECT body FROM documents WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
        return None if row is None else json.loads(row[0])

    def list(self, kind: str) -> list[Document]:
        """All documents of a kind, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT body FROM documents WHERE kind = ? ORDER BY sequence", (kind,)
            ).fetchall()
        return [json.loads(row[0]) for row in rows]

    def update(self, kind: str, name: str, change: Change) -> Document:
        """Apply `change` to the document in one transaction and return it. Raises DocumentMissingError."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT body FROM documents WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
            if row is None:
                raise DocumentMissingError(f"{kind} {name!r} does not exist")
            body: Document = json.loads(row[0])
            change(body)
            connection.execute(
                "UPDATE documents SET body = ? WHERE kind = ? AND name = ?", (json.dumps(body), kind, name)
            )
        return body

    def delete(self, kind: str, name: str) -> bool:
        """Remove a document; False where there was none."""
        with self._transaction() as connection:
            return (
                connection.execute("DELETE FROM documents WHERE kind = ? AND name = ?", (kind, name)).rowcount
                == 1
            )

    def add_metric(self, job: str, name: str, value: float, timestamp: float) -> None:
        """Add one value of a training job's metric."""
        with self._lock:
            self._connection.execute("INSERT INTO metrics VALUES (?, ?, ?, ?)", (job, name, value, timestamp))

    def delete_metrics(self, job: str) -> None:
        """Delete a training job's metrics, so that its name can be used again."""
        with self._lock:
            self._connection.execute("DELETE FROM metrics WHERE job = ?", (job,))

    def metrics(self, job: str, name: str | None = None) -> Sequence[Metric]:
        """Values of a training job in the order they were emitted."""
        query, arguments = "SELECT name, value, timestamp FROM metrics WHERE job = ?", [job]
        if name is not None:
            query, arguments = query + " AND name = ?", [job, name]
        with self._lock:
            rows = self._connection.execute(query + " ORDER BY rowid", arguments)
            return [Metric(*row) for row in rows]
