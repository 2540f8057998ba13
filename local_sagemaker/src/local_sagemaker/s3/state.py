"""moto's S3, kept on disk: an acknowledged change of a bucket or an object survives the end of the process.

moto keeps objects in memory. After a change, and before its response is sent, the changed key is written
to disk: its content as a blob, its metadata as a row that names the blob. A row is committed only when its
blob is complete, so a crash leaves either the old state or the new one. At startup the rows are read back
into moto; contents stay on disk. Objects are kept with metadata, tags, versions and delete markers, buckets
with versioning, tags, policy and encryption. Access control lists and unfinished uploads are not kept.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from moto.s3.models import FakeKey

from local_sagemaker.s3.blobs import Blobs
from local_sagemaker.s3.digests import Content, InvalidRequestError
from local_sagemaker.s3.moto_backend import (
    Record,
    Version,
    add_key,
    add_uploaded_key,
    attach_blob,
    blob_of,
    bucket_record,
    key_versions,
    restore_bucket,
    restore_version,
    s3_backend,
    version_record,
)
from local_sagemaker.s3.multipart import Parts

_SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS versions (
    bucket TEXT NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    blob TEXT,
    record TEXT NOT NULL,
    PRIMARY KEY (bucket, key, position)
) WITHOUT ROWID;
"""
_STEP = 1001  # rows at a time
_CURRENT = """
SELECT key, blob, record FROM versions AS one
WHERE bucket = ? AND key >= ? AND key > ? AND position = (
    SELECT MAX(position) FROM versions WHERE bucket = one.bucket AND key = one.key
)
ORDER BY key LIMIT ?
"""
_UNSAVED = "unsaved"  # in place of the blob of a version that is only in memory


class _Row(NamedTuple):
    """One stored version of a key; `blob` is None for a delete marker."""

    blob: str | None
    record: Record


class Entry(NamedTuple):
    """A current object; `record` is its JSON."""

    key: str
    record: str


class S3State:
    """Writes changes to disk. Hold `lock` around a change in moto and its `save_*`, to make them one step."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self._blobs = Blobs(root / "blobs")
        self._index = sqlite3.connect(root / "index.sqlite", check_same_thread=False, isolation_level=None)
        self._index.execute("PRAGMA journal_mode=WAL")
        self._index.execute("PRAGMA synchronous=NORMAL")
        self._index.executescript(_SCHEMA)

    def close(self) -> None:
        with self.lock:
            self._index.close()

    def restore(self) -> None:
        """Read all buckets and objects back into moto, and delete unused blobs."""
        for name, record in self._index.execute("SELECT name, record FROM buckets"):
            restore_bucket(name, json.loads(record))
        used: set[str] = set()
        for bucket, key, rows in self._stored_keys():
            self._restore_key(bucket, key, rows)
            used.update(row.blob for row in rows if row.blob)
        self._blobs.sweep(used)

    def save_bucket(self, name: str) -> None:
        """Write a bucket's properties and those of its keys that have changed."""
        bucket = s3_backend().buckets.get(name)
        if bucket is None:
            self._index.execute("DELETE FROM buckets WHERE name = ?", (name,))
        else:
            record = json.dumps(bucket_record(bucket))
            self._index.execute("INSERT OR REPLACE INTO buckets VALUES (?, ?)", (name, record))
        stored = self._stored_blobs(name)
        present = {} if bucket is None else {key: _blobs(found) for key, found in bucket.keys.iterlists()}
        for key in stored.keys() | present.keys():
            if stored.get(key) != present.get(key):
                self.save_key(name, key)

    def save_key(self, bucket: str, key: str) -> None:
        """Write all versions of a key.

        Raises OSError or sqlite3.Error; moto then has the key as it was before.
        """
        before = self._stored(bucket, key)
        added: list[str] = []
        try:
            rows = [self._save_version(version, added) for version in key_versions(bucket, key)]
            self._replace_rows(bucket, key, rows)
        except (OSError, sqlite3.Error):
            self._restore_key(bucket, key, before)
            self._blobs.discard(added)
            raise
        kept = {row.blob for row in rows}
        self._blobs.retire(row.blob for row in before if row.blob and row.blob not in kept)
        FakeKey.instances_tracked.clear()  # moto keeps every key that ever existed, for its reset

    def put(self, bucket: str, key: str, content: BinaryIO) -> None:
        """Add an object without holding its content in memory. The bucket must exist."""
        digest = hashlib.md5(usedforsecurity=False)
        name = self._blobs.add(content, digest.update)
        with self.lock:
            add_key(s3_backend().buckets[bucket], key, digest.hexdigest(), self._blobs.path(name))
            self.save_key(bucket, key)

    def put_content(self, bucket: str, key: str, content: Content, metadata: Mapping[str, str]) -> FakeKey:
        """Add an object as a client sends it. The bucket must exist. Raises InvalidRequestError."""
        name = self._blobs.add(content)
        try:
            content.check()
        except InvalidRequestError:
            self._blobs.discard([name])
            raise
        with self.lock:
            added = add_key(s3_backend().buckets[bucket], key, content.etag, self._blobs.path(name))
            added.set_metadata(metadata)
            for algorithm, value in content.checksums.items():
                added.checksum_algorithm, added.checksum_value = algorithm.upper(), value
            self.save_key(bucket, key)
        return added

    def entries(self, bucket: str, prefix: str, after: str) -> Iterator[Entry]:
        """The current objects of a bucket whose keys begin with `prefix` and come after `after`, in order."""
        while True:
            with self.lock:
                rows = self._index.execute(_CURRENT, (bucket, max(prefix, after), after, _STEP)).fetchall()
            for key, blob, record in rows:
                if not key.startswith(prefix):
                    return
                after = key
                if blob is not None:
                    yield Entry(key, record)
            if len(rows) < _STEP:
                return

    def complete(self, bucket: str, parts: Parts) -> FakeKey:
        """Make an object of an upload's parts."""
        name = self._blobs.add(parts)
        with self.lock:
            key = add_uploaded_key(
                s3_backend().buckets[bucket], parts.upload, parts.etag, self._blobs.path(name)
            )
            self.save_key(bucket, key.name)
        return key

    def _save_version(self, version: Version, added: list[str]) -> _Row:
        record = version_record(version)
        if not isinstance(version, FakeKey):
            return _Row(None, record)
        path = blob_of(version)
        if path is not None:
            return _Row(path.name, record)
        with version.lock:
            version._value_buffer.seek(0)
            name = self._blobs.add(version._value_buffer)
        added.append(name)
        attach_blob(version, self._blobs.path(name))
        return _Row(name, record)

    def _replace_rows(self, bucket: str, key: str, rows: list[_Row]) -> None:
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            self._index.execute("DELETE FROM versions WHERE bucket = ? AND key = ?", (bucket, key))
            self._index.executemany(
                "INSERT INTO versions VALUES (?, ?, ?, ?, ?)",
                [(bucket, key, at, row.blob, json.dumps(row.record)) for at, row in enumerate(rows)],
            )

    def _stored(self, bucket: str, key: str) -> list[_Row]:
        rows = self._index.execute(
            "SELECT blob, record FROM versions WHERE bucket = ? AND key = ? ORDER BY position", (bucket, key)
        )
        return [_Row(blob, json.loads(record)) for blob, record in rows]

    def _stored_blobs(self, bucket: str) -> dict[str, list[str | None]]:
        rows = self._index.execute(
            "SELECT key, blob FROM versions WHERE bucket = ? ORDER BY key, position", (bucket,)
        )
        return {key: [blob for _, blob in found] for key, found in groupby(rows, itemgetter(0))}

    def _stored_keys(self) -> Iterator[tuple[str, str, list[_Row]]]:
        rows = self._index.execute(
            "SELECT bucket, key, blob, record FROM versions ORDER BY bucket, key, position"
        )
        for (bucket, key), found in groupby(rows, itemgetter(0, 1)):
            yield bucket, key, [_Row(blob, json.loads(record)) for _, _, blob, record in found]

    def _restore_key(self, bucket: str, key: str, rows: list[_Row]) -> None:
        """Make moto's versions of a key the stored ones."""
        target = s3_backend().buckets.get(bucket)
        if target is None:
            return
        versions: list[Version] = []
        for row in rows:
            blob = None if row.blob is None else self._blobs.path(row.blob)
            versions.append(
                restore_version(bucket, key, row.record, blob, versions[-1] if versions else None)
            )
        if versions:
            target.keys.setlist(key, versions)
        elif key in target.keys:
            target.keys.pop(key)


def _blobs(versions: list[Version]) -> list[str | None]:
    """The blobs of a key's versions, to compare with what is stored."""
    names: list[str | None] = []
    for version in versions:
        path = blob_of(version)
        names.append(path.name if path else _UNSAVED if isinstance(version, FakeKey) else None)
    return names
