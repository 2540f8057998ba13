"""The training code as an archive in S3, named by its content: equal code is uploaded once."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from retraining.aws.s3 import read, write

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

logger = logging.getLogger(__name__)

_LARGEST_GROWTH = 2  # of an archive from one version of zlib to another
_LEFT_OUT = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "tests"}


def digest_of(folder: Path) -> str:
    """First 16 hex digits of the SHA-256 over the relative names and contents of the files."""
    digest = hashlib.sha256()
    for path in _files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def pack(folder: Path) -> bytes:
    """A tar.gz of the folder: equal contents give equal bytes, whatever times, owners and permissions."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as compressed:
        compressed.write(_tar(folder))
    return buffer.getvalue()


def _tar(folder: Path) -> bytes:
    """What `pack` compresses."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _files(folder):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def upload(s3: S3Client, folder: Path, digest: str, bucket: str, prefix: str) -> str:
    """Put the archive to `s3://<bucket>/<prefix>/<digest>/sourcedir.tar.gz` unless it is there.

    `digest` is the folder's (`digest_of`). An object of this name is read and compared, because whoever can
    write to the bucket can choose a name; one with other contents is replaced, with a warning. Returns the
    URI.
    """
    uri = f"s3://{bucket}/{prefix}/{digest}/sourcedir.tar.gz"
    archive = pack(folder)
    stored = read(s3, uri, _LARGEST_GROWTH * len(archive))
    if stored is not None and _unpacks_to(stored, _tar(folder)):
        return uri
    if stored is not None:
        logger.warning(
            "%s did not hold the code that its name stands for (SHA-256 %s): it was replaced. Find out who "
            "wrote it: jobs would have run it.",
            uri,
            hashlib.sha256(stored).hexdigest(),
        )
    return write(s3, uri, archive, "application/gzip")


def _unpacks_to(archive: bytes, content: bytes) -> bool:
    """Whether a gzip file holds exactly this; how well it is compressed depends on zlib's version."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as compressed:
            return compressed.read(len(content) + 1) == content
    except (OSError, EOFError, zlib.error):
        return False


def _files(folder: Path) -> Iterator[Path]:
    """The files that belong to the code, in the same order everywhere."""
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") or part in _LEFT_OUT for part in parts)
        if path.is_file() and not hidden and path.suffix not in {".pyc", ".pyo"}:
            yield path
