"""Files of a job wherever they lie: a local path or an ``s3://`` prefix, used by the same calls."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FilesMissingError(FileNotFoundError):
    """There is nothing at the path or prefix; the text names it."""


class StorageError(OSError):
    """S3 refused or did not answer; the text names the location and the reason."""


def is_s3(location: str) -> bool:
    """Whether ``location`` is an S3 URI."""
    return location.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def s3_client() -> Any:
    """An S3 client; ``S3_ENDPOINT_URL``, which AWS's training toolkit knows, redirects it."""
    import boto3  # noqa: PLC0415 - local paths must work where boto3 is not installed

    return boto3.client("s3", endpoint_url=os.environ.get("S3_ENDPOINT_URL") or None)


@contextmanager
def storage_explained(location: str) -> Iterator[None]:
    """Turn what boto3 raises into a StorageError that names ``location``."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"{location}: {error}") from error


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """The files at ``location`` as a local path: itself, or a download that is removed afterwards.

    Raises FilesMissingError if nothing is there.
    """
    if not is_s3(location):
        path = Path(location)
        if not path.exists():
            raise FilesMissingError(
                f"{location} does not exist; give the file or folder that holds the samples"
            )
        yield path
        return
    folder = Path(tempfile.mkdtemp(prefix="debugger-"))
    try:
        with storage_explained(location):
            download(location, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def download(uri: str, folder: Path) -> None:
    """Fetch every object under the prefix ``uri`` into ``folder``, keeping the rest of its key."""
    bucket, prefix = split_s3(uri)
    client = s3_client()
    found = False
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"]
            if not _under(key, prefix) or key.endswith("/"):
                continue
            found = True
            target = folder / (key[len(prefix) :].lstrip("/") or key.rsplit("/", 1)[-1])
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
    if not found:
        raise FilesMissingError(f"no object under {uri}; check the bucket and the prefix")


def _under(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or prefix.endswith("/") or key.startswith(prefix + "/")


def put_folder(folder: Path, location: str) -> None:
    """Put every file under ``folder`` to ``location``, a folder or an S3 prefix."""
    if not is_s3(location):
        shutil.copytree(folder, location, dirs_exist_ok=True)
        return
    bucket, prefix = split_s3(location)
    client = s3_client()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with storage_explained(location):
            key = "/".join(part for part in (prefix.rstrip("/"), path.relative_to(folder).as_posix()) if part)
            client.upload_file(str(path), bucket, key)


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
