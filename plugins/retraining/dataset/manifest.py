"""The manifest: what checks of a data set found out about every picture, kept in S3.

It is both a cache, by which the next check reads only what is new, and the state of the data set in a run,
with which the next run compares. The file is gzip'd JSON lines: first `{"manifest": <version>}`, then one
object a picture.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

from retraining.aws.s3 import read
from retraining.dataset.images import SIGNATURE_BYTES, Look
from retraining.dataset.listing import Picture

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

FILE = "dataset/manifest.jsonl.gz"
_VERSION = 1  # raise it when the hash, the signature or what counts as damaged changes: all is read again
_GZIP_LEVEL = 3  # hashes and signatures do not compress, so more effort would gain little


def encode(pictures: Iterable[Picture], looks: Mapping[tuple[str, int], Look]) -> bytes:
    """The manifest of those pictures that were looked at."""
    buffer = BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as file:
        file.write(json.dumps({"manifest": _VERSION}).encode() + b"\n")
        for picture in pictures:
            look = looks.get(picture.version)
            if look is not None and look.sha256:
                file.write(json.dumps(_line(picture, look), separators=(",", ":")).encode() + b"\n")
    return buffer.getvalue()


def load(s3: S3Client, uri: str) -> list[tuple[Picture, Look]] | None:
    """The pictures of a manifest; None where there is none or, with a warning, where it cannot be used."""
    content = read(s3, uri)
    if content is None:
        return None
    try:
        return list(_decoded(content))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        log.warning("The manifest %s cannot be used and is written anew: %s", uri, error)
        return None


def digest(pictures: Iterable[Picture]) -> str:
    """SHA-256 over the sorted paths with ETags and sizes: another one when any picture changed or moved."""
    total = hashlib.sha256()
    for picture in sorted(pictures, key=lambda one: one.path):
        total.update(f"{picture.path}\0{picture.etag}\0{picture.size}\n".encode())
    return total.hexdigest()


def _line(picture: Picture, look: Look) -> dict[str, Any]:
    line: dict[str, Any] = {
        "path": picture.path,
        "etag": picture.etag,
        "size": picture.size,
        "sha256": look.sha256,
    }
    if look.problem:
        return {**line, "problem": look.problem}
    signature = base64.b64encode(look.signature).decode()
    pixels = [look.width, look.height]
    return {**line, "phash": look.phash, "signature": signature, "pixels": pixels}


def _decoded(content: bytes) -> Iterator[tuple[Picture, Look]]:
    """Raises ValueError, KeyError or TypeError for lines that are no manifest's."""
    with gzip.open(BytesIO(content)) as file:
        lines = TextIOWrapper(file, encoding="utf-8")
        header = json.loads(next(lines, "null"))
        if header != {"manifest": _VERSION}:
            raise ValueError(f"it begins with {str(header)[:80]}, not with version {_VERSION}")
        for line in lines:
            entry = json.loads(line)
            split, label, _ = entry["path"].split("/", 2)
            yield Picture(entry["path"], split, label, entry["etag"], entry["size"]), _look(entry)


def _look(entry: dict[str, Any]) -> Look:
    if "problem" in entry:
        return Look(entry["sha256"], problem=entry["problem"])
    signature = base64.b64decode(entry["signature"], validate=True)
    int(entry["phash"], 16)
    if len(signature) != SIGNATURE_BYTES or len(entry["phash"]) != 16:
        raise ValueError(f"the entry of {entry['path']} has a hash or signature of a wrong length")
    width, height = entry["pixels"]
    return Look(entry["sha256"], entry["phash"], signature, width, height)
