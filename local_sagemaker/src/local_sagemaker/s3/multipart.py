"""CompleteMultipartUpload without the whole object in memory: the parts are joined on disk.

Only a valid request is completed here; any other goes to moto, which raises S3's errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from moto.s3.models import FakeKey, FakeMultipart
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

from local_sagemaker.s3.moto_backend import s3_backend


class Parts:
    """The parts of an upload, read like one file."""

    def __init__(self, upload: FakeMultipart, parts: Sequence[FakeKey]) -> None:
        self.upload = upload
        self._parts = parts
        self._left = list(parts)
        for part in parts:
            part._value_buffer.seek(0)

    @property
    def etag(self) -> str:
        """S3's ETag of a multipart object: the MD5 of the parts' MD5s, and the number of parts."""
        digests = b"".join(bytes.fromhex(_etag(part)) for part in self._parts)
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self._parts)}"

    def read(self, size: int, /) -> bytes:
        while self._left:
            chunk: bytes = self._left[0]._value_buffer.read(size)
            if chunk:
                return chunk
            del self._left[0]
        return b""


def is_unknown(bucket: str, upload_id: str) -> bool:
    """Whether the bucket exists and the upload does not: it has ended, or a restart dropped it."""
    found = s3_backend().buckets.get(bucket)
    return found is not None and upload_id not in found.multiparts


def parts_in_order(bucket: str, key: str, upload_id: str, document: bytes) -> Parts | None:
    """The parts that a CompleteMultipartUpload document lists; None if the request is not valid."""
    found = s3_backend().buckets.get(bucket)
    upload = None if found is None else found.multiparts.get(upload_id)
    if upload is None or upload.key_name != key:
        return None
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - expat limits what entities may expand to
        listed = [_listed(element) for element in root if _name(element) == "Part"]
    except (ElementTree.ParseError, ValueError, KeyError):
        return None
    numbers = [number for number, _ in listed]
    if not listed or numbers != sorted(set(numbers)) or not set(numbers) <= upload.parts.keys():
        return None
    parts = [upload.parts[number] for number in numbers]
    if [_etag(part) for part in parts] != [etag for _, etag in listed]:
        return None
    if any(part.contentsize < S3_UPLOAD_PART_MIN_SIZE for part in parts[:-1]):
        return None
    return Parts(upload, parts)


def _listed(element: Any) -> tuple[int, str]:
    members = {_name(child): child.text or "" for child in element}
    return int(members["PartNumber"]), members["ETag"].strip('"')


def _name(element: Any) -> str:
    """The tag without its namespace."""
    name: str = element.tag.rpartition("}")[2]
    return name


def _etag(part: FakeKey) -> str:
    etag: str = part.etag.strip('"')
    return etag
