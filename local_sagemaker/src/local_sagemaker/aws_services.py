"""S3, IAM, STS, CloudWatch and Logs: moto's server as an ASGI app, with S3 and IAM kept on disk."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)
from moto.moto_server import werkzeug_app
from moto.moto_server.utilities import RegexConverter
from starlette.types import Receive, Scope, Send

from local_sagemaker.context import Context
from local_sagemaker.errors import FREE_SPACE, is_disk_full
from local_sagemaker.iam_state import restore_iam, save_iam
from local_sagemaker.moto_calls import call_moto, decompress
from local_sagemaker.s3.requests import S3Requests, s3_error
from local_sagemaker.s3.state import S3State
from local_sagemaker.wsgi import HttpResponse, IncompleteBodyError, serve

logger = logging.getLogger(__name__)

_THREADS = 16
_SCOPE = re.compile(r"Credential=[^/]*/\d+/[^/]*/([^/]+)/aws4_request")
_GARBAGE = 64 * 1024 * 1024  # bytes of request bodies between collections


def _any_character(*arguments: Any) -> Any:
    """moto's converter for parts of paths, where a key may have line breaks."""
    converter = RegexConverter(*arguments)
    converter.regex = f"(?s:{converter.regex})"
    return converter


class AwsServices:
    """The ASGI app. `s3` is the state that the runtime's own access to S3 shares."""

    def __init__(self, context: Context) -> None:
        os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")  # AmazonSageMakerFullAccess etc.
        self._context = context
        werkzeug_app.RegexConverter = _any_character
        werkzeug_app.DISABLE_GLOBAL_CORS = True  # else every page may read and write: see `access.cors`
        self._moto: WSGIApplication = werkzeug_app.DomainDispatcherApplication(
            werkzeug_app.create_backend_app
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="aws")
        self._garbage = 0
        self.s3 = S3State(context.settings.root / "s3")
        self._s3_requests = S3Requests(self._moto, self.s3)

    def resume(self) -> None:
        """Read S3 and IAM back from disk."""
        self.s3.restore()
        restore_iam(self._context.store)

    def close(self) -> None:
        self._threads.shutdown()
        self.s3.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await serve(self._respond, self._threads, scope, receive, send)
        except IncompleteBodyError as error:
            logger.warning("%s", error)

    def _respond(self, environ: WSGIEnvironment) -> HttpResponse:
        _restore_what_asgi_lost(environ)
        service = _service(environ)
        try:
            if service == "s3":
                return self._s3_requests.respond(environ)
            if service == "iam":
                return self._iam(environ)
            if service == "sagemaker":  # moto's SageMaker would describe jobs that never ran
                return _unsupported(environ)
            return self._call_moto(environ)
        except (OSError, sqlite3.Error) as error:
            return _refusal(error, self._context.settings.root)
        finally:
            self._collect_garbage(int(environ["CONTENT_LENGTH"]))

    def _iam(self, environ: WSGIEnvironment) -> HttpResponse:
        with self.s3.lock:
            response = self._call_moto(environ)
            if response.succeeded and environ["REQUEST_METHOD"] == "POST":
                self._save_iam()
        return response

    def _call_moto(self, environ: WSGIEnvironment) -> HttpResponse:
        try:
            decompress(environ)
        except ValueError as error:
            return _refused(environ, 400, "SerializationException", str(error))
        return call_moto(self._moto, environ, partial(_refused, environ))

    def _save_iam(self) -> None:
        try:
            save_iam(self._context.store)
        except (OSError, sqlite3.Error):
            restore_iam(self._context.store)
            raise

    def _collect_garbage(self, size: int) -> None:
        """Free the bodies of past requests, which moto's reference cycles would keep for long."""
        self._garbage += size
        if self._garbage > _GARBAGE:
            self._garbage = 0
            gc.collect()


def _refusal(error: OSError | sqlite3.Error, root: Path) -> HttpResponse:
    """The response to a change that could not be written; boto3 does not retry status 507."""
    logger.error("Could not write to %s: %s", root, error)
    reason = "the disk is full" if is_disk_full(error) else str(error)
    message = f"The local SageMaker could not write to {root}: {reason}. {FREE_SPACE}"
    return s3_error(507, "InsufficientStorage", message)


def _refused(environ: WSGIEnvironment, status: int, code: str, message: str) -> HttpResponse:
    """An error of IAM, STS, CloudWatch or Logs, as JSON where the request is, else as XML."""
    if "HTTP_X_AMZ_TARGET" in environ:
        return _json_error(status, code, message)
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    body = f"<ErrorResponse>{error}</ErrorResponse>".encode()
    return HttpResponse(status, [("Content-Type", "application/xml")], body)


def _unsupported(environ: WSGIEnvironment) -> HttpResponse:
    message = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} is not part of the local SageMaker runtime"
    return _json_error(400, "UnknownOperationException", message)


def _json_error(status: int, code: str, message: str) -> HttpResponse:
    headers = [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)]
    return HttpResponse(status, headers, json.dumps({"__type": code, "message": message}).encode())


def _restore_what_asgi_lost(environ: WSGIEnvironment) -> None:
    """Restore the undecoded path, and header names with underscores (object metadata may have them).

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


def _service(environ: WSGIEnvironment) -> str:
    """The service that the request is signed for; S3 if it is unsigned or signed in its URL."""
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return scope[1] if scope else "s3"
