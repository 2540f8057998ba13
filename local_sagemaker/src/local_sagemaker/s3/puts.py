"""PutObject without moto, which takes longer and holds the whole object in memory.

Only what every client sends is done here. A bucket with settings of its own, and headers that ask for more
(locks, encryption, tags, conditions, copies), are left to moto.
"""

from __future__ import annotations

from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from moto.s3.utils import metadata_from_headers

from local_sagemaker.s3.digests import Content, check_key
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.state import S3State
from local_sagemaker.wsgi import Headers, HttpResponse

_HANDLED = {
    "content-sha256",
    "date",
    "decoded-content-length",
    "sdk-checksum-algorithm",
    "security-token",
    "trailer",
    "user-agent",
}
_CONDITIONS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}


def is_plain(environ: WSGIEnvironment, bucket: str, key: str) -> bool:
    """Whether `put` does what moto would do."""
    if environ["REQUEST_METHOD"] != "PUT" or not key:
        return False
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    found = s3_backend().buckets.get(bucket)
    if found is None or query.keys() - {"x-id"}:
        return False
    if found.policy or found.encryption or found.object_lock_enabled:
        return False
    return not environ.keys() & _CONDITIONS and all(_is_handled(name) for name in environ)


def put(environ: WSGIEnvironment, state: S3State, bucket: str, key: str) -> HttpResponse:
    """Store the object. Raises InvalidRequestError for a body that is not as declared, and OSError."""
    check_key(key)
    content = Content(environ)
    names = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(("HTTP_", "CONTENT_TYPE")) and isinstance(value, str)
    }
    stored = state.put_content(bucket, key, content, metadata_from_headers(names))
    headers: Headers = [("ETag", stored.etag)]
    headers += [(f"x-amz-checksum-{name}", value) for name, value in content.checksums.items()]
    if stored.version_id != "null":
        headers.append(("x-amz-version-id", str(stored.version_id)))
    return HttpResponse(200, headers)


def _is_handled(name: str) -> bool:
    prefix = "HTTP_X_AMZ_"
    if not name.startswith(prefix):
        return True
    rest = name.removeprefix(prefix).replace("_", "-").lower()
    return rest in _HANDLED or rest.startswith(("meta-", "checksum-"))
