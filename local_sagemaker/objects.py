"""S3 inside the process: listing, download and upload without HTTP."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local_sagemaker.platform import ACCOUNT, Platform


class ObjectMissingError(Exception):
    """There is no such object, or no object under the prefix."""


class BucketMissingError(Exception):
    """There is no such bucket."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object. `etag` has no quotes; `size` is in bytes."""

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
        raise ValueError(f"{uri!r} is no S3 URI; it must look like s3://bucket/key")
    return parts.netloc, parts.path.lstrip("/")


class Objects:
    """The runtime's own view of S3. Safe to call from any thread."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def list(self, uri: str) -> list[ObjectInfo]:
        """The objects under a prefix, in key order. Raises BucketMissingError; no object is an empty list."""
        bucket, prefix = split_uri(uri)
        keys = self._bucket(bucket).keys
        found = [(name, keys.get(name)) for name in sorted(keys._self_iterable()) if name.startswith(prefix)]
        return [
            ObjectInfo(bucket, name, key.size, key.etag.strip('"'))
            for name, key in found
            if hasattr(key, "size")
        ]

    def exists(self, uri: str) -> bool:
        """True for an object; False also where the bucket is missing."""
        try:
            self._key(uri)
        except (ObjectMissingError, BucketMissingError):
            return False
        return True

    def download(self, uri: str, path: Path) -> None:
        """Copy an object to a file, whole or not at all. Raises ObjectMissingError or BucketMissingError."""
        value = self._key(uri).value
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        with partial.open("wb") as file:
            shutil.copyfileobj(io.BytesIO(value), file)
        partial.replace(path)

    def upload(self, path: Path, uri: str) -> None:
        """Put a file as an object. Raises BucketMissingError."""
        bucket, key = split_uri(uri)
        self._bucket(bucket)
        self._backend().put_object(bucket, key, path.read_bytes())

    def _backend(self) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends[ACCOUNT]["aws"]

    def _bucket(self, name: str) -> Any:
        bucket = self._backend().buckets.get(name)
        if bucket is None:
            raise BucketMissingError(f"there is no bucket s3://{name}; create it or correct the URI")
        return bucket

    def _key(self, uri: str) -> Any:
        bucket, name = split_uri(uri)
        key = self._bucket(bucket).keys.get(name)
        if key is None or not hasattr(key, "value"):
            raise ObjectMissingError(f"there is no object {uri}; upload it or correct the URI")
        return key
