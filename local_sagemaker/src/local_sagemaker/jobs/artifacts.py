"""What a job writes to S3: `model.tar.gz`, `output.tar.gz`, and folders that are synced while it runs."""

from __future__ import annotations

import gzip
import logging
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from local_sagemaker.channels import relative_path
from local_sagemaker.lasting import attempt
from local_sagemaker.paths import below
from local_sagemaker.s3.objects import Objects, split_uri

logger = logging.getLogger(__name__)

_GZIP_LEVEL = 1  # weights hardly compress: higher levels cost minutes for a few percent
_STAMP = 946_684_800  # 2000-01-01, the time of all members, so that equal content gives equal archives
_SETTLED_SECONDS = 1.0
_SYNC_SECONDS = 2.0
_UNFINISHED = ".tmp"  # smdebug's suffix while it writes a file (smdebug/core/access_layer/file.py)
_INDEX = "index"  # smdebug's trials read events as soon as their index exists


def join_uri(uri: str, *parts: str) -> str:
    return "/".join([uri.rstrip("/"), *parts])


def pack(folder: Path, archive: Path) -> None:
    """Write a folder as a tar.gz; equal content gives equal bytes. Raises OSError."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = _STAMP
    return member


def upload_packed(folder: Path, uri: str, workspace: Path, objects: Objects) -> None:
    """Upload `folder` as a tar.gz, which is made in `workspace`; nothing for an empty folder.

    Raises OSError or BucketMissingError.
    """
    if not any(folder.rglob("*")):
        return
    archive = workspace / uri.rpartition("/")[2]
    pack(folder, archive)
    objects.upload(archive, uri)
    archive.unlink()


class FolderSync:
    """Uploads the new and changed files of a folder to a prefix in S3; deletes nothing there."""

    def __init__(self, folder: Path, uri: str, objects: Objects) -> None:
        self._folder = folder
        self._uri = uri
        self._objects = objects
        self._seen: dict[Path, tuple[int, int]] = {}

    def sync(self, *, final: bool = False) -> int:
        """Upload what has changed and return the number of files.

        A file changed within the last second may be incomplete and waits, unless `final`. Raises OSError or
        BucketMissingError.
        """
        settled = time.time() - (0 if final else _SETTLED_SECONDS)
        count = 0
        for path, status in _files(self._folder):
            state = (status.st_mtime_ns, status.st_size)
            if self._seen.get(path) != state and (final or status.st_mtime <= settled):
                self._objects.upload(path, join_uri(self._uri, path.relative_to(self._folder).as_posix()))
                self._seen[path] = state
                count += 1
        return count

    def download(self) -> int:
        """Download the prefix and return the number of files. Raises OSError or BucketMissingError."""
        prefix = join_uri(self._uri, "")
        found = [item for item in self._objects.list(prefix) if not item.key.endswith("/")]
        for item in found:
            path = below(self._folder, str(relative_path(item.key, split_uri(prefix)[1])))
            self._objects.download(item.uri, path)
            status = path.stat()
            self._seen[path] = (status.st_mtime_ns, status.st_size)
        return len(found)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Complete files with their status; indexes come last, so that what they name is in S3 before them."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != _UNFINISHED]
    for path in sorted(found, key=lambda item: (_INDEX in item.relative_to(folder).parts, item)):
        try:
            yield path, path.stat()
        except FileNotFoundError:
            continue


class BackgroundSync:
    """Syncs folders in its own thread while a process is followed, so that big files do not delay the log."""

    def __init__(self, folders: list[FolderSync]) -> None:
        self.folders = folders
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sync", daemon=True)

    def __enter__(self) -> BackgroundSync:
        if self.folders:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._done.wait(_SYNC_SECONDS):
            for folder in self.folders:
                attempt(folder.sync, "Syncing a folder to S3")
