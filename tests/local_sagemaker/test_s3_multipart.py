"""Completing a multipart upload: what counts as a list of parts in order."""

from __future__ import annotations

import uuid

import pytest
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.multipart import parts_in_order
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

KEY = "big"
FIRST, LAST = b"a" * S3_UPLOAD_PART_MIN_SIZE, b"last"


@pytest.fixture
def bucket() -> str:
    name = f"uploads-{uuid.uuid4().hex[:8]}"
    s3_backend().create_bucket(name, "us-east-1")
    return name


@pytest.fixture
def upload(bucket: str) -> str:
    """An upload of two parts; its id."""
    backend = s3_backend()
    made = backend.create_multipart_upload(bucket, KEY, {}, "STANDARD", None, None, None, None)
    upload_id: str = made.id
    backend.upload_part(bucket, upload_id, 1, FIRST)
    backend.upload_part(bucket, upload_id, 2, LAST)
    return upload_id


def part(bucket: str, upload_id: str, number: int) -> str:
    etag = s3_backend().buckets[bucket].multiparts[upload_id].parts[number].etag
    return f"<Part><ETag>{etag}</ETag><PartNumber>{number}</PartNumber></Part>"


def complete(bucket: str, upload_id: str, *elements: str) -> bytes | None:
    """The joined parts of a CompleteMultipartUpload document; None where it is left to moto."""
    document = f"<CompleteMultipartUpload>{''.join(elements)}</CompleteMultipartUpload>"
    parts = parts_in_order(bucket, KEY, upload_id, document.encode())
    return None if parts is None else b"".join(iter(lambda: parts.read(2**20), b""))


def test_the_parts_are_joined(bucket: str, upload: str) -> None:
    both = [part(bucket, upload, number) for number in (1, 2)]
    assert complete(bucket, upload, *both) == FIRST + LAST


def test_other_elements_are_ignored(bucket: str, upload: str) -> None:
    both = [part(bucket, upload, number) for number in (1, 2)]
    assert complete(bucket, upload, "<Comment>two parts</Comment>", *both) == FIRST + LAST


def test_an_invalid_request_is_left_to_moto(bucket: str, upload: str) -> None:
    one, two = (part(bucket, upload, number) for number in (1, 2))
    assert complete(bucket, upload, two, one) is None
    assert complete(bucket, upload) is None
    assert complete(bucket, upload, one, "<Part><ETag>none</ETag><PartNumber>2</PartNumber></Part>") is None
    assert complete(bucket, "no such upload", one, two) is None
