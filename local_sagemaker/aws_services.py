"""S3, IAM, STS, CloudWatch and Logs: moto's server as a WSGI app, with S3 and IAM kept on disk.

An answer to a change of S3 or IAM goes out after the change is on disk. If it cannot get there, the change is
undone and the client learns why.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, unquote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from local_sagemaker.errors import FREE_SPACE, is_disk_full
from local_sagemaker.iam_state import restore_iam, save_iam
from local_sagemaker.platform import Operation, Platform
from local_sagemaker.s3_state import S3State
from local_sagemaker.s3_streaming import body_of, large_blob

logger = logging.getLogger(__name__)

_CHANGING_METHODS = {"PUT", "POST", "DELETE"}
_SCOPE = re.compile(r"Credential=[^/]*/\d+/[^/]*/([^/]+)/aws4_request")
_IN_MEMORY_BODY = 8 * 1024 * 1024
_LARGE = 64 * 1024 * 1024
_CHUNK = 1024 * 1024


class AwsServices:
    """The WSGI app, and the S3 state that the runtime's own access to S3 shares with it."""

    def __init__(self, platform: Platform) -> None:
        os.environ.setdefault(
            "MOTO_IAM_LOAD_MANAGED_POLICIES", "true"
        )  # AmazonSageMakerFullAccess and the like
        self._platform = platform
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.s3 = S3State(platform.settings.root / "s3")

    def operations(self) -> Mapping[str, Operation]:
        """None of SageMaker's."""
        return {}

    def resume(self) -> None:
        """Read S3 and IAM back from disk."""
        self.s3.restore()
        restore_iam(self._platform.store)

    def close(self) -> None:
        self.s3.close()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _restore_what_asgi_lost(environ)
        service = _service(environ)
        if service == "sagemaker":  # moto's would answer with jobs that nobody ran
            return _not_here(environ).send(start_response)
        if service == "s3" and environ["REQUEST_METHOD"] == "GET":
            return self._read(environ, start_response)
        if service not in {"s3", "iam"} or environ["REQUEST_METHOD"] not in _CHANGING_METHODS:
            return self._forward(environ, start_response)
        try:
            answer = self._change(service, environ)
        except _IncompleteBodyError:
            answer = _s3_error(
                "400 Bad Request", "IncompleteBody", "The connection ended before the body did."
            )
        except (OSError, sqlite3.Error) as error:
            answer = _refusal(error, self._platform.settings.root)
        return answer.send(start_response)

    def _forward(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        chunks: Iterable[bytes] = self._moto(environ, start_response)
        return chunks

    def _read(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        blob = large_blob(environ, *_bucket_and_key(environ))
        if blob is not None:
            answer = _answer_of(self._moto, environ | {"REQUEST_METHOD": "HEAD"})
            body = body_of(blob, answer.status, answer.headers)
            if body is not None:
                start_response(answer.status, answer.headers)
                return body.chunks()
        return self._forward(environ, start_response)

    def _change(self, service: str, environ: WSGIEnvironment) -> _Answer:
        with _buffered(environ) as body:
            environ["wsgi.input"] = body
            with self.s3.lock:
                answer = _answer_of(self._moto, environ)
                if answer.succeeded:
                    self._save(service, environ)
            if body.tell() > _LARGE:
                gc.collect()  # moto's requests are cycles, which would keep the body in memory
        return answer

    def _save(self, service: str, environ: WSGIEnvironment) -> None:
        if service == "iam":
            save_iam(self._platform.store)
            return
        bucket, key = _bucket_and_key(environ)
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        if not bucket or "uploads" in query or "select" in query or "partNumber" in query:
            return
        if key:
            self.s3.save_key(bucket, key)
        else:
            self.s3.save_bucket(bucket)


@dataclass(frozen=True)
class _Answer:
    status: str
    headers: list[tuple[str, str]]
    body: list[bytes]

    @property
    def succeeded(self) -> bool:
        return self.status.startswith("2")

    def send(self, start_response: StartResponse) -> list[bytes]:
        start_response(self.status, self.headers)
        return self.body


def _answer_of(app: WSGIApplication, environ: WSGIEnvironment) -> _Answer:
    """The app's whole answer, held back."""
    started: list[Any] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], _exc_info: Any = None
    ) -> Callable[[bytes], object]:
        started[:] = [status, headers]
        return body.append

    body: list[bytes] = []
    chunks = app(environ, start_response)
    try:
        body.extend(chunks)
    finally:
        getattr(chunks, "close", lambda: None)()
    return _Answer(started[0], started[1], body)


def _refusal(error: OSError | sqlite3.Error, root: Path) -> _Answer:
    """An S3 error for a change that could not be written. 507 is not a status that boto3 retries."""
    logger.error("Could not write to %s: %s", root, error)
    reason = "the disk is full" if is_disk_full(error) else str(error)
    message = f"The local SageMaker could not write to {root}: {reason}. {FREE_SPACE}"
    return _s3_error("507 Insufficient Storage", "InsufficientStorage", message)


def _not_here(environ: WSGIEnvironment) -> _Answer:
    code = "UnknownOperationException"
    message = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} is not part of the local SageMaker runtime"
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)]
    return _Answer("400 Bad Request", headers, [json.dumps({"__type": code, "message": message}).encode()])


def _s3_error(status: str, code: str, message: str) -> _Answer:
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return _Answer(status, [("Content-Type", "application/xml")], [body.encode()])


def _restore_what_asgi_lost(environ: WSGIEnvironment) -> None:
    """Give moto the path before decoding, and header names with underscores, which object metadata may have.

    The host becomes `localhost`, for which moto reads bucket names from the path only.
    """
    scope = environ["asgi.scope"]
    query = environ["QUERY_STRING"]
    environ["RAW_URI"] = scope["raw_path"].decode("latin1") + (f"?{query}" if query else "")
    names = [name.decode("latin1") for name, _ in scope["headers"]]
    environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = {
        environ_key_for_header(name): name for name in names if should_preserve_original_header_name(name)
    }
    environ["HTTP_HOST"] = "localhost"


def _bucket_and_key(environ: WSGIEnvironment) -> tuple[str, str]:
    """Empty where the path has none."""
    bucket, _, key = environ["RAW_URI"].partition("?")[0].removeprefix("/").partition("/")
    return unquote(bucket), unquote(key)


def _service(environ: WSGIEnvironment) -> str:
    """The service that the request is signed for; what is not signed, or signed in its URL, is S3's."""
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return scope[1] if scope else "s3"


class _IncompleteBodyError(Exception):
    """The client went away in the middle of its request."""


def _buffered(environ: WSGIEnvironment) -> IO[bytes]:
    """The request's body, read before any lock is taken; a large one lies in a file."""
    body = tempfile.SpooledTemporaryFile(_IN_MEMORY_BODY)  # noqa: SIM115 - the caller closes it
    incoming = environ["wsgi.input"]
    while chunk := incoming.read(_CHUNK):
        body.write(chunk)
    if body.tell() < int(environ.get("CONTENT_LENGTH") or 0):
        raise _IncompleteBodyError
    body.seek(0)
    return body
