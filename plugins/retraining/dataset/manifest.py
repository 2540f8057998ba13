"""The manifest: what checks of a dataset found out about every image, kept in S3.

It is a cache, so that the next check reads only new files, and a record of the dataset at the time of a
run, with which later runs compare. The file is gzipped JSON lines: first `{"manifest": <version>}`, then
one object per image.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any

from retraining.aws.s3 import read
from retraining.dataset.images import SIGNATURE_BYTES, ImageFacts, InspectedImage
from retraining.dataset.listing import DatasetImage, Version
from retraining.runs.results import ChangeCounts, DatasetChanges

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

FILE = "dataset/manifest.jsonl.gz"
_VERSION = (
    2  # raise it if the hash, the signature or what counts as damaged changes: all files are read again
)
_GZIP_LEVEL = 3  # hashes and signatures hardly compress, so a higher level gains little


def encode(images: Iterable[DatasetImage], facts: Mapping[Version, ImageFacts]) -> bytes:
    """The manifest of the images whose content has been read."""
    buffer = BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as file:
        file.write(json.dumps({"manifest": _VERSION}).encode() + b"\n")
        for image in images:
            known = facts.get(image.version)
            if known is not None and known.sha256:
                file.write(json.dumps(_entry(image, known), separators=(",", ":")).encode() + b"\n")
    return buffer.getvalue()


def load(s3: S3Client, uri: str) -> list[InspectedImage] | None:
    """The images of a manifest; None if there is none or, with a warning, if it is unusable."""
    content = read(s3, uri)
    if content is None:
        return None
    try:
        return list(_decoded(content))
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        log.warning("The manifest %s is unusable and will be rewritten: %s", uri, error)
        return None


def digest(images: Iterable[DatasetImage]) -> str:
    """SHA-256 over the sorted paths with ETags and sizes; it changes if any image changes or moves."""
    total = hashlib.sha256()
    for image in sorted(images, key=lambda one: one.path):
        total.update(f"{image.path}\0{image.etag}\0{image.size}\n".encode())
    return total.hexdigest()


def changes_since(
    run: str, before: Iterable[InspectedImage], now: Iterable[InspectedImage]
) -> DatasetChanges:
    """Changes since the run of this name. An image that moved counts as one removed and one added; an image
    whose content differs under the same key counts as changed.
    """
    old, new = _contents(before), _contents(now)
    classes: dict[str, ChangeCounts] = defaultdict(lambda: {"added": 0, "removed": 0, "changed": 0})
    for path, (label, content) in new.items():
        if path not in old:
            classes[label]["added"] += 1
        elif old[path][1] != content:
            classes[label]["changed"] += 1
    for path, (label, _) in old.items():
        if path not in new:
            classes[label]["removed"] += 1
    return {
        "since": run,
        "classes": dict(sorted(classes.items())),
        "added": sum(counts["added"] for counts in classes.values()),
        "removed": sum(counts["removed"] for counts in classes.values()),
        "changed": sum(counts["changed"] for counts in classes.values()),
    }


def _contents(inspected: Iterable[InspectedImage]) -> dict[str, tuple[str, str]]:
    """Class and digest of the content, by path."""
    return {image.path: (image.label, facts.sha256) for image, facts in inspected}


def _entry(image: DatasetImage, facts: ImageFacts) -> dict[str, object]:
    entry: dict[str, object] = {
        "path": image.path,
        "etag": image.etag,
        "size": image.size,
        "sha256": facts.sha256,
    }
    if facts.problem:
        return {**entry, "problem": facts.problem}
    signature = base64.b64encode(facts.signature).decode()
    return {**entry, "phash": facts.phash, "signature": signature, "pixels": [facts.width, facts.height]}


def _decoded(content: bytes) -> Iterator[InspectedImage]:
    """Raises ValueError, KeyError or TypeError for lines that do not belong in a manifest."""
    with gzip.open(BytesIO(content)) as file:
        lines = TextIOWrapper(file, encoding="utf-8")
        header = json.loads(next(lines, "null"))
        if header != {"manifest": _VERSION}:
            raise ValueError(f"it begins with {str(header)[:80]}, not with version {_VERSION}")
        for line in lines:
            entry = json.loads(line)
            split, label, _ = entry["path"].split("/", 2)
            yield DatasetImage(entry["path"], split, label, entry["etag"], entry["size"]), _facts(entry)


def _facts(entry: Mapping[str, Any]) -> ImageFacts:
    if "problem" in entry:
        return ImageFacts(entry["sha256"], problem=entry["problem"])
    signature = base64.b64decode(entry["signature"], validate=True)
    int(entry["phash"], 16)
    if len(signature) != SIGNATURE_BYTES or len(entry["phash"]) != 16:
        raise ValueError(f"the entry of {entry['path']} has a hash or signature of the wrong length")
    width, height = entry["pixels"]
    return ImageFacts(entry["sha256"], entry["phash"], signature, width, height)
