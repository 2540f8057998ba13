"""ListObjectsV2 from the index; moto sorts and serialises all keys of a bucket for every page."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote
from wsgiref.types import WSGIEnvironment
from xml.sax.saxutils import escape

from local_sagemaker.patterns import number
from local_sagemaker.s3.digests import InvalidRequestError
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.state import Entry, S3State
from local_sagemaker.wsgi import HttpResponse

_PAGE = 1000
_TO_THE_SECOND = len("2026-01-31T12:00:00")
_PARAMETERS = {
    "list-type",
    "prefix",
    "delimiter",
    "start-after",
    "continuation-token",
    "max-keys",
    "encoding-type",
    "x-id",
}
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def list_objects(environ: WSGIEnvironment, state: S3State, bucket: str, key: str) -> HttpResponse | None:
    """The response; None for what is no ListObjectsV2 of a bucket that exists.

    Raises InvalidRequestError for parameters that are none.
    """
    if environ["REQUEST_METHOD"] != "GET" or key:
        return None
    query = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    if query.get("list-type") != "2":
        return None
    found = s3_backend().buckets.get(bucket)
    if found is None or found.policy or query.keys() - _PARAMETERS:
        return None
    largest = number(query.get("max-keys", str(_PAGE)))
    after = _after(query)
    if largest is None:
        raise InvalidRequestError("InvalidArgument", "The parameter max-keys is no number.")
    if after is None:
        raise InvalidRequestError("InvalidArgument", "The continuation token provided is incorrect.")
    return HttpResponse(
        200,
        [("Content-Type", "application/xml")],
        _document(state, bucket, query, after, min(largest, _PAGE)).encode(),
    )


def _after(query: dict[str, str]) -> str | None:
    """The key after which the page begins; None for a token that is none."""
    if "continuation-token" not in query:
        return query.get("start-after", "")
    try:
        return base64.urlsafe_b64decode(query["continuation-token"].encode()).decode()
    except (binascii.Error, ValueError):
        return None


def _document(state: S3State, bucket: str, query: dict[str, str], after: str, largest: int) -> str:
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    encoded = query.get("encoding-type") == "url"
    contents: list[str] = []
    folders: list[str] = []
    last = after
    truncated = False
    for name, entry in _found(state, bucket, prefix, delimiter, after):
        if len(contents) + len(folders) == largest:
            truncated = largest > 0
            break
        if entry is None:
            folders.append(f"<CommonPrefixes><Prefix>{_text(name, encoded)}</Prefix></CommonPrefixes>")
        else:
            contents.append(_content(entry, encoded))
        last = name
    token = base64.urlsafe_b64encode(last.encode()).decode()
    members = {
        "Name": bucket,
        "Prefix": _text(prefix, encoded),
        "MaxKeys": str(largest),
        "KeyCount": str(len(contents) + len(folders)),
        "IsTruncated": str(truncated).lower(),
        **({"Delimiter": _text(delimiter, encoded)} if delimiter else {}),
        **({"StartAfter": _text(query["start-after"], encoded)} if query.get("start-after") else {}),
        **({"EncodingType": "url"} if encoded else {}),
        **({"ContinuationToken": query["continuation-token"]} if "continuation-token" in query else {}),
        **({"NextContinuationToken": token} if truncated else {}),
    }
    head = "".join(f"<{name}>{value}</{name}>" for name, value in members.items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{_NAMESPACE}">{head}'
        f"{''.join(contents)}{''.join(folders)}</ListBucketResult>"
    )


def _found(
    state: S3State, bucket: str, prefix: str, delimiter: str, after: str
) -> Iterator[tuple[str, Entry | None]]:
    """Objects, and common prefixes with None, in order; a common prefix is skipped with one step."""
    position = after
    if delimiter and after.startswith(prefix) and delimiter in after.removeprefix(prefix):
        position = _end_of(_folder(after, prefix, delimiter))
    while True:
        folder = None
        for entry in state.entries(bucket, prefix, position):
            if delimiter and delimiter in entry.key.removeprefix(prefix):
                folder = _folder(entry.key, prefix, delimiter)
                break
            position = entry.key
            yield entry.key, entry
        if folder is None:
            return
        yield folder, None
        position = _end_of(folder)


def _folder(key: str, prefix: str, delimiter: str) -> str:
    return prefix + key.removeprefix(prefix).partition(delimiter)[0] + delimiter


def _end_of(folder: str) -> str:
    """A text after everything that begins with the folder's name."""
    return folder + chr(0x10FFFF)


def _content(entry: Entry, encoded: bool) -> str:
    record = json.loads(entry.record)
    modified = record["last_modified"][:_TO_THE_SECOND]
    return (
        f"<Contents><Key>{_text(entry.key, encoded)}</Key>"
        f"<LastModified>{modified}.000Z</LastModified>"
        f"<ETag>&quot;{record['_etag']}&quot;</ETag><Size>{record['contentsize']}</Size>"
        f"<StorageClass>{record['_storage_class'] or 'STANDARD'}</StorageClass></Contents>"
    )


def _text(text: str, encoded: bool) -> str:
    return quote(text, safe="/") if encoded else escape(text)
