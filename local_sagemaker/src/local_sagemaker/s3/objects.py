"""S3 for the runtime itself: list, download and upload within the process, without HTTP."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from moto.s3.models import FakeBucket, FakeKey

from local_sagemaker.s3.moto_backend import blob_of, s3_backend
from local_sagemaker.s3.state import S3State


class ObjectMissingError(Exception):
    """There is no such object."""


class BucketMissingError(Exception):
    """There is no such bucket."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object. `etag` is without quotes; `size` is in bytes."""

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` → (bucket, key). Raises ValueError naming the text."""
    parts = urlsplit(uri, allow_fragments=False)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(f"{uri!r} is not an S3 URI; it must have the form s3://bucket/key")
    return parts.netloc, uri.removeprefix(f"s3://{parts.netloc}").removeprefix("/")


class Objects:
    """The objects in S3. Safe to call from any thread."""

    def __init__(self, s3: S3State) -> None:
        self._s3 = s3

    def list(self, uri: str) -> list[ObjectInfo]:
        """The objects whose keys start with the URI's, in key order; the list may be empty.

        Raises BucketMissingError.
        """
        bucket, prefix = split_uri(uri)
        current = [(name, versions[-1]) for name, versions in _bucket(bucket).keys.iterlists()]
        return [
            ObjectInfo(bucket, name, key.size, key.etag.strip('"'))
            for name, key in sorted(current, key=lambda item: item[0])
            if name.startswith(prefix) and isinstance(key, FakeKey)
        ]

    def exists(self, uri: str) -> bool:
        """Whether there is an object; False where the bucket is missing too."""
        try:
            _key(uri)
        except (ObjectMissingError, BucketMissingError):
            return False
        return True

    def download(self, uri: str, path: Path) -> None:
        """Copy an object to a file, whole or not at all. Raises ObjectMissingError or BucketMissingError."""
        key = _key(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        blob = blob_of(key)
        try:
            if blob is None:  # its upload is still in progress
                partial.write_bytes(key.value)
            else:
                shutil.copyfile(blob, partial)
        except OSError:  # half a file would keep a full disk full
            partial.unlink(missing_ok=True)
            raise
        partial.replace(path)

    def upload(self, path: Path, uri: str) -> None:
        """Put a file as an object. Raises BucketMissingError."""
        bucket, key = split_uri(uri)
        if not key:
            raise ValueError(f"{uri!r} names a bucket; an object needs a key: s3://bucket/key")
        _bucket(bucket)
        with path.open("rb") as content:
            self._s3.put(bucket, key, content)


def _bucket(name: str) -> FakeBucket:
    bucket = s3_backend().buckets.get(name)
    if bucket is None:
        raise BucketMissingError(f"there is no bucket s3://{name}; create it or correct the URI")
    return bucket


def _key(uri: str) -> FakeKey:
    bucket, name = split_uri(uri)
    key = _bucket(bucket).keys.get(name)
    if not isinstance(key, FakeKey):
        raise ObjectMissingError(f"there is no object {uri}; upload it or correct the URI")
    return key
