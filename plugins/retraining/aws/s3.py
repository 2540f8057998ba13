"""Objects in S3, by their URIs."""

from __future__ import annotations

import json
import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random_exponential

from retraining.aws.responses import is_unanswered, or_none

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3 import S3Client

BROWSER_VARIABLE = "RETRAINING_BROWSER_S3_URL"
_PATIENCE_SECONDS = 180
LINK_SECONDS = 7 * 24 * 3600  # S3's longest; links signed with temporary credentials expire with them


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI; the key has no slash at either end."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key.strip("/")


def exists(s3: S3Client, uri: str) -> bool:
    """Whether there is an object of this URI."""
    bucket, key = split_uri(uri)
    return or_none(partial(s3.head_object, Bucket=bucket, Key=key)) is not None


@retry(
    retry=retry_if_exception(is_unanswered),
    wait=wait_random_exponential(max=20),
    stop=stop_after_delay(_PATIENCE_SECONDS),
    reraise=True,
)
def content_of(s3: S3Client, bucket: str, key: str, size: int | None = None) -> bytes:
    """The object's content, or its first `size` bytes.

    Tries again for three minutes where there is no answer. botocore does not do that once the body has
    begun, and its retries are for a few calls at a time: all threads of a client share a quota of 500, of
    which a retry takes 14.
    """
    with closing(s3.get_object(Bucket=bucket, Key=key)["Body"]) as body:
        return body.read(size)


def read(s3: S3Client, uri: str, size: int | None = None) -> bytes | None:
    """The object's content, or its first `size` bytes; None where there is no object."""
    return or_none(partial(content_of, s3, *split_uri(uri), size))


def write(s3: S3Client, uri: str, content: bytes, content_type: str = "application/octet-stream") -> str:
    """Put an object, and return its URI."""
    bucket, key = split_uri(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType=content_type)
    return uri


def read_json(s3: S3Client, uri: str) -> Any:
    """The document, or None where there is none."""
    content = read(s3, uri)
    return None if content is None else json.loads(content)


def write_json(s3: S3Client, uri: str, document: Any) -> str:
    """Put a document, and return its URI."""
    return write(s3, uri, json.dumps(document, indent=1).encode(), "application/json")


def link(s3: S3Client, uri: str, content_type: str = "text/html; charset=utf-8") -> str:
    """A link that opens the object in a browser, for up to seven days.

    Where browsers reach S3 at another address than Airflow does, as with containers, the environment variable
    RETRAINING_BROWSER_S3_URL names it, and the link is signed for that one. AWS accepts links to its own.
    """
    bucket, key = split_uri(uri)
    parameters = {"Bucket": bucket, "Key": key, "ResponseContentType": content_type}
    s3.meta.events.register("before-sign.s3.GetObject", _address_for_browsers, unique_id=BROWSER_VARIABLE)
    return s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_SECONDS)


def _address_for_browsers(request: AWSRequest, signature_version: str, **_: object) -> None:
    """Before a link is signed, have it lead to where browsers reach S3. Other requests stay as they are."""
    address = os.environ.get(BROWSER_VARIABLE)
    if address and request.url and signature_version.endswith("-query"):
        parts, shown = urlsplit(request.url), urlsplit(address)
        path = shown.path.rstrip("/") + parts.path
        request.url = urlunsplit(parts._replace(scheme=shown.scheme, netloc=shown.netloc, path=path))
