"""A job's files, by the same calls for a local path and for an ``s3://`` prefix."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FilesMissingError(FileNotFoundError):
    """There is nothing at the path or prefix; the message names it."""


class StorageError(OSError):
    """S3 refused a request or did not respond; the message names location and reason."""


def is_s3(location: str) -> bool:
    """Whether ``location`` is an S3 URI."""
    return location.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def s3_client() -> Any:
    """An S3 client. ``S3_ENDPOINT_URL`` overrides its endpoint, as in AWS's training toolkit."""
    import boto3  # noqa: PLC0415 - local paths must work where boto3 is not installed

    return boto3.client("s3", endpoint_url=os.environ.get("S3_ENDPOINT_URL") or None)


@contextmanager
def storage_explained(location: str) -> Iterator[None]:
    """Raise boto3's errors as a StorageError that names ``location``."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"{location}: {error}") from error


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """``location`` itself or, from S3, a temporary copy. Raises FilesMissingError and StorageError."""
    if not is_s3(location):
        path = Path(location)
        if not path.exists():
            raise FilesMissingError(f"{location} does not exist: give the file or folder with the samples")
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
    """Download every object below ``uri`` into ``folder``.

    Raises FilesMissingError without any, and StorageError for a key that leads out of the folder.
    """
    bucket, prefix = split_s3(uri)
    client = s3_client()
    found = False
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            key = item["Key"]
            if not _under(key, prefix) or key.endswith("/"):
                continue
            found = True
            target = place(folder, key[len(prefix) :].removeprefix("/") or key.rsplit("/", 1)[-1])
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(target))
    if not found:
        raise FilesMissingError(f"no object under {uri}; check the bucket and the prefix")


def place(folder: Path, name: str) -> Path:
    """The path in ``folder`` for an object's name. Raises StorageError for one that leads out of it."""
    if "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise StorageError(f"the object {name!r} cannot be a file in a folder: rename or delete it")
    return folder / name


def _under(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or prefix.endswith("/") or key.startswith(prefix + "/")


def put_folder(folder: Path, location: str) -> None:
    """Copy every file in ``folder`` to ``location``, a folder or an S3 prefix. Raises StorageError."""
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
    """Replace the content of ``path`` by ``text`` atomically, creating its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
