"""S3 over HTTP: moto responds, and a change is on disk before its response is sent.

A change that cannot be written is undone, and the client gets an error. Sending large objects and joining the
parts of an upload are done here, because moto would hold whole objects in memory.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote
from wsgiref.types import WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from moto.s3.models import FakeKey

from local_sagemaker.moto_calls import call_moto
from local_sagemaker.s3.buckets import check_bucket
from local_sagemaker.s3.digests import InvalidRequestError, check, check_key
from local_sagemaker.s3.lists import list_objects
from local_sagemaker.s3.multipart import is_unknown, parts_in_order
from local_sagemaker.s3.puts import is_plain, put
from local_sagemaker.s3.state import S3State
from local_sagemaker.s3.streaming import body_of, large_blob
from local_sagemaker.wsgi import HttpResponse

_CHANGING_METHODS = {"PUT", "POST", "DELETE"}
_NO_CHANGE_OF_OBJECTS = {
    "uploads",
    "select",
    "partNumber",
}  # parameters that tell POST and PUT apart


class S3Requests:
    """Responds in any thread. Raises OSError or sqlite3.Error where a change cannot be written."""

    def __init__(self, moto: WSGIApplication, state: S3State) -> None:
        self._moto = moto
        self._state = state

    def respond(self, environ: WSGIEnvironment) -> HttpResponse:
        bucket, key = _bucket_and_key(environ)
        try:
            if is_plain(environ, bucket, key):
                return put(environ, self._state, bucket, key)
            if environ["REQUEST_METHOD"] in _CHANGING_METHODS:
                check(environ)
                check_key(key)
                with self._state.lock:
                    return self._change(environ, bucket, key)
            return (
                list_objects(environ, self._state, bucket, key)
                or self._large_object(environ, bucket, key)
                or self._call_moto(environ)
            )
        except InvalidRequestError as error:
            return s3_error(400, error.code, str(error))

    def _large_object(self, environ: WSGIEnvironment, bucket: str, key: str) -> HttpResponse | None:
        blob = large_blob(environ, bucket, key)
        if blob is None:
            return None
        head = self._call_moto(environ | {"REQUEST_METHOD": "HEAD"})
        body = body_of(blob, head)
        return None if body is None else HttpResponse(head.status, head.headers, body)

    def _change(self, environ: WSGIEnvironment, bucket: str, key: str) -> HttpResponse:
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        if bucket and not key:
            check_bucket(environ, bucket, query.keys())
        if "uploadId" in query:
            response = self._upload(environ, bucket, key, query["uploadId"][0])
        else:
            response = self._call_moto(environ)
        if response.succeeded and bucket and not query.keys() & _NO_CHANGE_OF_OBJECTS:
            self._save(bucket, key)
        return response

    def _upload(self, environ: WSGIEnvironment, bucket: str, key: str, upload_id: str) -> HttpResponse:
        """A request about a multipart upload."""
        if is_unknown(bucket, upload_id):
            text = "The upload does not exist: it was completed or aborted, or a restart has ended it."
            return s3_error(404, "NoSuchUpload", text)
        if environ["REQUEST_METHOD"] == "POST":
            body = environ["wsgi.input"]
            parts = parts_in_order(bucket, key, upload_id, body.read())
            body.seek(0)
            if parts is not None:
                return _completed(bucket, self._state.complete(bucket, parts))
        return self._call_moto(environ)

    def _call_moto(self, environ: WSGIEnvironment) -> HttpResponse:
        return call_moto(self._moto, environ, s3_error)

    def _save(self, bucket: str, key: str) -> None:
        if key:
            self._state.save_key(bucket, key)
        else:
            self._state.save_bucket(bucket)


def s3_error(status: int, code: str, message: str) -> HttpResponse:
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return HttpResponse(status, [("Content-Type", "application/xml")], body.encode())


def _bucket_and_key(environ: WSGIEnvironment) -> tuple[str, str]:
    """Bucket and key of a request; empty text where the path has none."""
    bucket, _, key = environ["RAW_URI"].partition("?")[0].removeprefix("/").partition("/")
    return unquote(bucket), unquote(key)


def _completed(bucket: str, key: FakeKey) -> HttpResponse:
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    body = (
        f'<CompleteMultipartUploadResult xmlns="{namespace}"><Bucket>{bucket}</Bucket>'
        f"<Key>{escape(key.name)}</Key><ETag>{escape(key.etag)}</ETag></CompleteMultipartUploadResult>"
    )
    versions = [("x-amz-version-id", key.version_id)] if key.version_id != "null" else []
    return HttpResponse(200, [("Content-Type", "application/xml"), *versions], body.encode())
