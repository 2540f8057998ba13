"""Opens and follows a job's tensor folder without blocking in smdebug.

smdebug's ``create_trial`` blocks until collection files exist, and ``wait_for_steps`` until a step does. A
rule evaluation must also notice the end of the job, so the functions here poll once and return what they
found. A folder in S3 is mirrored to a temporary folder; only new objects are downloaded.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from debugger.layout import END_MARKER
from debugger.storage import is_s3, place, s3_client, split_s3, storage_explained


class ForeignTensorsError(ValueError):
    """The tensor folder was written before the job started; the message names it."""


class IncompleteIndexError(ValueError):
    """The folder's index cannot be read; the message says why. A later poll may succeed."""


class TensorFolder:
    """The tensors below ``location``, a folder or S3 prefix that need not exist yet.

    If collection files are older than ``started`` (epoch seconds), the folder belongs to another job.
    """

    def __init__(self, location: str, started: float | None = None) -> None:
        self.location = location.rstrip("/")
        self.trial: Any = None
        self._started = started
        self._mirror = _Mirror(self.location) if is_s3(self.location) else None
        self._path = self._mirror.path if self._mirror else Path(self.location)

    def open(self) -> bool:
        """Open the trial if the collection files of all its workers exist; returns whether it is open.

        Raises ForeignTensorsError, IncompleteIndexError, and OSError from the storage.
        """
        if self.trial is not None:
            return True
        self._fetch()
        files = self._collection_files()
        workers = _workers(files)
        if not workers or len(files) < workers:
            return False
        age = max(one.stat().st_mtime for one in files)
        if self._started is not None and age < self._started:
            raise ForeignTensorsError(
                f"the tensors under {self.location} were saved {self._started - age:.0f} s before this "
                "job started, so they belong to another job; give each job its own folder"
            )
        from smdebug.trials import create_trial  # noqa: PLC0415 - slow, and some jobs save no tensors

        with self._damage_explained():
            self.trial = create_trial(str(self._path))
        self.trial.dynamic_refresh = False
        return True

    def refresh(self, *, ended: bool) -> list[int]:
        """Global steps that are complete, in order; every saved step if the job has ended.

        Raises IncompleteIndexError, and OSError from the storage.
        """
        self._fetch()
        try:
            with self._damage_explained():
                self.trial.refresh_data()
        finally:
            if ended:
                self.trial.loaded_all_steps = True
        found: list[int] = self.trial.steps()
        return found

    def has_ended(self) -> bool:
        """Whether the end-of-training marker exists."""
        return (self._path / END_MARKER).exists()

    def description(self) -> str:
        """What the folder holds, to explain why that is not enough."""
        files = self._collection_files()
        workers = _workers(files)
        if not files:
            return f"the job saved no tensors under {self.location}"
        if not workers:
            return f"the collection file under {self.location} is incomplete"
        return f"{len(files)} of {workers} workers wrote their collections under {self.location}"

    @contextmanager
    def _damage_explained(self) -> Iterator[None]:
        from smdebug.exceptions import SMDebugError  # noqa: PLC0415 - as above

        try:
            yield
        except (SMDebugError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise IncompleteIndexError(f"the index under {self.location} cannot be read: {error}") from error

    def _collection_files(self) -> list[Path]:
        return sorted((self._path / "collections").glob("*/*_collections.json"))

    def _fetch(self) -> None:
        if self._mirror:
            with storage_explained(self.location):
                self._mirror.fetch()


def _workers(files: list[Path]) -> int:
    """Number of workers by the first collection file; 0 without one, or while it is incomplete."""
    try:
        return int(json.loads(files[0].read_text(encoding="utf-8"))["_meta"]["num_workers"]) if files else 0
    except (ValueError, KeyError, TypeError, OSError):
        return 0


class _Mirror:
    """A local mirror of an S3 prefix."""

    def __init__(self, location: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="debugger-tensors-")
        self.path = Path(self._folder.name)
        self._bucket, self._prefix = split_s3(location)
        self._client = s3_client()
        self._have: set[tuple[str, str]] = set()

    def fetch(self) -> None:
        """Download new objects. The index, listed first and downloaded last, never lacks its data."""
        index = self._list("index/")
        for name in ("collections/", "events/", END_MARKER):
            self._get(self._list(name))
        self._get(index)

    def _list(self, name: str) -> list[dict[str, Any]]:
        prefix = f"{self._prefix}/{name}" if self._prefix else name
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [one for page in pages for one in page.get("Contents", [])]

    def _get(self, objects: list[dict[str, Any]]) -> None:
        for one in objects:
            version = (one["Key"], one["ETag"])
            if version in self._have:
                continue
            target = place(self.path, one["Key"][len(self._prefix) :].removeprefix("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_file(self._bucket, one["Key"], str(target))
            modified = one["LastModified"].timestamp()
            os.utime(target, (modified, modified))
            self._have.add(version)


def prepare_smdebug() -> None:
    """Keep smdebug from logging and from importing PyTorch, in a process that only reads tensors.

    Call it before smdebug is first imported. smdebug uses PyTorch, if installed, to find the rank in a
    distributed training, which a reader does not have. Without PyTorch an evaluator takes 95 MB instead of
    560 and starts in a third of the time (measured with PyTorch 2.13).
    """
    os.environ.setdefault("SMDEBUG_LOG_LEVEL", "error")
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
