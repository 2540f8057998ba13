"""Input data of jobs: S3 objects in a channel's folder, each downloaded once and then hard-linked.

The cache has one file for each content (ETag and size). Files are read-only and have a fixed modification
time; a file that a job altered all the same has another one, and is downloaded again.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from local_sagemaker.errors import is_disk_full
from local_sagemaker.paths import UnsafePathError, below, relative
from local_sagemaker.s3.objects import ObjectInfo, ObjectMissingError, Objects, split_uri

Channel = Mapping[str, Any]  # a member of InputDataConfig

_STAMP = 946_684_800 * 10**9  # 2000-01-01: the modification time of an unaltered file, in nanoseconds
_DOWNLOADS = 4
_LOCKS = 64


class ChannelError(Exception):
    """A channel's data cannot be provided; the message names the channel or object, and the fix."""


@dataclass(frozen=True)
class Placement:
    """An object and its path in the channel's folder, which is empty for a folder marker."""

    source: ObjectInfo
    path: PurePosixPath


class ObjectCache:
    """Downloaded objects by content. Safe to use from any thread."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        self._folder = folder
        self._objects = objects
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def link(self, source: ObjectInfo, target: Path) -> None:
        """Link the object at `target`, whose folder exists.

        Where the disk is full, files that no job uses are evicted first. Raises ObjectMissingError,
        BucketMissingError, ChannelError or OSError.
        """
        cached = self._path(source)
        with self._locks[hash(cached.name) % _LOCKS]:
            if not _intact(cached, source.size):
                self._fetch(source, cached)
            _link(cached, target)

    def has(self, source: ObjectInfo) -> bool:
        """Whether the object is in the cache, unaltered."""
        return _intact(self._path(source), source.size)

    def _path(self, source: ObjectInfo) -> Path:
        return self._folder / source.etag[:2] / f"{source.etag}-{source.size}"

    def _fetch(self, source: ObjectInfo, cached: Path) -> None:
        try:
            self._objects.download(source.uri, cached)
        except OSError as error:
            if not is_disk_full(error) or not self.evict():
                raise
            self._objects.download(source.uri, cached)
        if (size := cached.stat().st_size) != source.size:
            cached.unlink()
            raise ChannelError(f"{source.uri} changed while it was read: {size} bytes, not {source.size}")
        cached.chmod(0o444)
        os.utime(cached, ns=(_STAMP, _STAMP))

    def evict(self) -> int:
        """Delete the files that no job links to; returns the freed bytes."""
        freed = 0
        for path in self._folder.glob("*/*"):
            status = path.stat()
            if status.st_nlink == 1:
                path.unlink(missing_ok=True)
                freed += status.st_size
        return freed


def _intact(cached: Path, size: int) -> bool:
    try:
        status = cached.stat()
    except FileNotFoundError:
        return False
    return status.st_size == size and status.st_mtime_ns == _STAMP


def _link(cached: Path, target: Path) -> None:
    try:
        target.hardlink_to(cached)
    except OSError as error:  # too many links, or a file system without hard links
        if error.errno not in {errno.EMLINK, errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}:
            raise
        shutil.copy2(cached, target)


def s3_uri(channel: Channel) -> str:
    uri: str = channel["DataSource"]["S3DataSource"]["S3Uri"]
    return uri


def placements(channel: Channel, objects: Objects) -> list[Placement]:
    """A channel's objects and their paths.

    Paths are relative to the prefix's folder: with `s3://b/data/train`, `data/train/a/1.jpg` is at `a/1.jpg`.
    Raises BucketMissingError, ObjectMissingError or ChannelError.
    """
    source = channel["DataSource"]["S3DataSource"]
    kind = source["S3DataType"]
    if kind == "S3Prefix":
        return _prefix_placements(source["S3Uri"], objects)
    if kind == "ManifestFile":
        return _manifest_placements(source["S3Uri"], objects)
    raise ChannelError(f"channel {channel['ChannelName']!r}: S3DataType {kind} is not supported here")


def _prefix_placements(uri: str, objects: Objects) -> list[Placement]:
    found = objects.list(uri)
    if not found:
        raise ObjectMissingError(f"there is no object under {uri}; upload the data or correct the URI")
    prefix = split_uri(uri)[1]
    return [Placement(item, relative_path(item.key, prefix)) for item in found]


def relative_path(key: str, prefix: str) -> PurePosixPath:
    """A key's path in the channel's folder, empty for a folder marker.

    Raises ChannelError for a key that leads out of the folder or cannot be a file's path.
    """
    start = prefix if prefix.endswith("/") else f"{prefix}/"
    if not key.startswith(start):  # the object itself, or a prefix that ends within a name
        start = prefix[: prefix.rfind("/") + 1]
    rest = key.removeprefix(start)
    try:
        path = relative(rest.removesuffix("/")) if rest else PurePosixPath()
    except UnsafePathError as error:
        raise ChannelError(f"the key {key!r} cannot be a file in the channel's folder: {error}") from error
    return PurePosixPath() if key.endswith("/") else path


def _manifest_placements(uri: str, objects: Objects) -> list[Placement]:
    """Read a manifest, a JSON list: first `{"prefix": "s3://bucket/folder/"}`, then keys below the prefix."""
    try:
        head, *names = json.loads(_read_text(uri, objects))
        prefix = head["prefix"]
    except (ValueError, KeyError, TypeError) as error:
        raise ChannelError(
            f'{uri} is not a manifest, which has the form [{{"prefix": "s3://bucket/folder/"}}, "a.jpg", ...]'
        ) from error
    key_prefix = split_uri(prefix)[1]
    found = {item.key: item for item in objects.list(prefix)}
    missing = [name for name in names if key_prefix + name not in found]
    if missing:
        raise ObjectMissingError(f"{uri} names {missing[0]!r}, and there is no object {prefix}{missing[0]}")
    folder = key_prefix[: key_prefix.rfind("/") + 1]
    return [Placement(found[key_prefix + name], relative_path(key_prefix + name, folder)) for name in names]


def _read_text(uri: str, objects: Objects) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        objects.download(uri, path)
        return path.read_text()


def provide(channel: Channel, folder: Path, objects: Objects, cache: ObjectCache) -> int:
    """Replace a channel's folder by its data; returns the number of files.

    Raises BucketMissingError, ObjectMissingError, ChannelError or OSError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = placements(channel, objects)
    files = [item for item in wanted if item.path.parts]
    _make_folders(folder, files)
    missing = []
    for item in files:
        if cache.has(item.source):
            _place(item, folder, cache)
        else:
            missing.append(item)
    with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="download") as pool:
        for _ in pool.map(lambda item: _place(item, folder, cache), missing):
            pass  # raises what a download raised
    if channel.get("CompressionType") == "Gzip":
        _decompress(folder / item.path for item in files)
    return len(files)


def _place(item: Placement, folder: Path, cache: ObjectCache) -> None:
    try:
        cache.link(item.source, below(folder, str(item.path)))
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise ChannelError(f"{item.source.uri} is both an object and a folder; rename one") from error


def _make_folders(folder: Path, files: Iterable[Placement]) -> None:
    for parent in sorted({item.path.parent for item in files}):
        try:
            (folder / parent).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ChannelError(f"the key {parent} is both an object and a folder; rename one") from error


def _decompress(paths: Iterator[Path]) -> None:
    """Decompress gzip files in place, as SageMaker does for CompressionType Gzip."""
    for path in paths:
        plain = path.with_name(path.name + ".plain")
        try:
            with gzip.open(path) as packed, plain.open("wb") as file:
                shutil.copyfileobj(packed, file)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ChannelError(
                f"{path.name} is not a complete gzip file, but its CompressionType is Gzip"
            ) from error
        plain.replace(path)
