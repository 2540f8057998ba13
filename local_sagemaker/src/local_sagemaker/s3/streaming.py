"""GetObject for large objects, sent from the blob in chunks; moto would read all of it for every range.

moto still decides on status and headers: it gets the request as HeadObject, with the same conditions.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from moto.s3.models import FakeKey

from local_sagemaker.s3.moto_backend import blob_of, key_versions
from local_sagemaker.wsgi import FileSlice, HttpResponse

_WORTHWHILE = 1024 * 1024  # bytes; below it, moto's own response is cheaper than a second request to moto
_PLAIN_PARAMETERS = {"x-id", "versionId"}  # others select another operation or override headers
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/\d+")


def large_blob(environ: WSGIEnvironment, bucket: str, key: str) -> Path | None:
    """The blob to send, if the request is a plain GetObject of a large object; else None."""
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    if environ["REQUEST_METHOD"] != "GET" or not key or query.keys() - _PLAIN_PARAMETERS:
        return None
    versions = key_versions(bucket, key)
    if "versionId" in query:
        versions = [version for version in versions if version.version_id == query["versionId"][0]]
    if not versions or not isinstance(versions[-1], FakeKey) or versions[-1].size < _WORTHWHILE:
        return None
    return blob_of(versions[-1])


def body_of(blob: Path, head: HttpResponse) -> FileSlice | None:
    """What to send with moto's response to HeadObject; None where it is one without a body."""
    if head.status == HTTPStatus.OK:
        return FileSlice(blob, 0, blob.stat().st_size)
    named = {name.lower(): value for name, value in head.headers}
    found = _CONTENT_RANGE.fullmatch(named.get("content-range", ""))
    if head.status != HTTPStatus.PARTIAL_CONTENT or found is None:
        return None
    first, last = int(found[1]), int(found[2])
    return FileSlice(blob, first, last - first + 1)
