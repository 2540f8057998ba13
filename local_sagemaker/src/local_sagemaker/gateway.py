"""The one port: SageMaker and SageMaker Runtime are handled here, other AWS services go to moto.

The event loop only moves bytes. Operations and invocations run in thread pools of their own, so that slow
models cannot starve the API and uploads can starve neither.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar
from xml.sax.saxutils import escape

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from local_sagemaker.context import Operation, Service
from local_sagemaker.errors import (
    FREE_SPACE,
    ApiError,
    InsufficientStorageError,
    ModelError,
    UnknownOperationError,
    ValidationError,
    is_disk_full,
)
from local_sagemaker.patterns import matches
from local_sagemaker.protocol import parse_request, serialise_response, service_model, violation_message

logger = logging.getLogger(__name__)

_TARGET_PREFIX = "SageMaker."
_JSON_1_1 = "application/x-amz-json-1.1"
_API_THREADS = 16
_INVOCATION_THREADS = 64
_MAX_INVOCATION_BYTES = 25 * 1024 * 1024  # quota "payload size" of a real-time endpoint

_Result = TypeVar("_Result")


class Inference(Protocol):
    """What handles `InvokeEndpoint`."""

    def invoke(
        self, endpoint_name: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The container's status, headers and body. Raises ModelError or ValidationError."""
        ...


def build_app(
    operations: Mapping[str, Operation], services: Sequence[Service], inference: Inference, others: ASGIApp
) -> Starlette:
    """The ASGI app; `others` takes the requests to other AWS services.

    On startup every service resumes before the first request is served; on shutdown they are closed.
    """
    gateway = _Gateway(operations, services, inference)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for service in services:
            await asyncio.to_thread(service.resume)
        try:
            yield
        finally:
            for service in reversed(services):
                await asyncio.to_thread(service.close)
            gateway.close()

    app = Starlette(
        routes=[
            Route("/_local/health", gateway.health),
            Route("/endpoints/{name}/invocations", gateway.invoke, methods=["POST"]),
            Route("/endpoints/{name}/{operation}", gateway.refuse_runtime_operation, methods=["POST"]),
        ],
        exception_handlers={
            ApiError: _api_error,
            OSError: _storage_error,
            sqlite3.OperationalError: _storage_error,
            Exception: _internal_failure,
        },
        lifespan=lifespan,
    )
    app.router.default = _ByTarget(gateway.call, others)  # the path of a route matches no line break
    return app


class _ByTarget:
    """Routes requests by their `X-Amz-Target` header."""

    def __init__(self, sagemaker: Callable[[HttpRequest], Any], others: ASGIApp) -> None:
        self._sagemaker = sagemaker
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if headers.get(b"x-amz-target", b"").startswith(_TARGET_PREFIX.encode()):
            response: Response = await self._sagemaker(HttpRequest(scope, receive))
            await response(scope, receive, send)
        elif scope["path"].startswith("/moto-api"):  # its reset would empty S3 in memory but not on disk
            await Response(status_code=404)(scope, receive, send)
        else:
            await self._others(scope, receive, send)


class _Gateway:
    def __init__(
        self, operations: Mapping[str, Operation], services: Sequence[Service], inference: Inference
    ) -> None:
        self._operations = operations
        self._services = services
        self._inference = inference
        self._api_threads = ThreadPoolExecutor(_API_THREADS, thread_name_prefix="api")
        self._invocation_threads = ThreadPoolExecutor(_INVOCATION_THREADS, thread_name_prefix="invocation")

    def close(self) -> None:
        self._api_threads.shutdown(wait=False, cancel_futures=True)
        self._invocation_threads.shutdown(wait=False, cancel_futures=True)

    async def health(self, _request: HttpRequest) -> Response:
        services = {type(service).__name__: "ready" for service in self._services}
        return JSONResponse({"status": "ready", "services": services, "operations": sorted(self._operations)})

    async def call(self, request: HttpRequest) -> Response:
        """One SageMaker operation."""
        name = request.headers["x-amz-target"].removeprefix(_TARGET_PREFIX)
        body = await _in_thread(self._api_threads, partial(self._run, name, await request.body()))
        return Response(body, media_type=_JSON_1_1, headers=_request_id())

    def _run(self, name: str, body: bytes) -> bytes:
        operation = self._operations.get(name)
        if operation is None:
            raise _unknown_operation(name, self._operations)
        return serialise_response(name, operation(parse_request(name, body)))

    async def invoke(self, request: HttpRequest) -> Response:
        """`InvokeEndpoint`: forward the body to the model's container and return its response."""
        name = request.path_params["name"]
        body = await request.body()
        _check_invocation(name, body)
        status, headers, content = await _in_thread(
            self._invocation_threads, partial(self._inference.invoke, name, body, dict(request.headers))
        )
        if not 200 <= status < 300:
            raise _model_error(status, content)
        return Response(content, headers={**headers, **_request_id()})

    async def refuse_runtime_operation(self, request: HttpRequest) -> Response:
        raise UnknownOperationError(
            f"{request.url.path} is not part of the local runtime: "
            "use InvokeEndpoint, POST /endpoints/<name>/invocations"
        )


async def _in_thread(pool: ThreadPoolExecutor, work: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _unknown_operation(name: str, known: Mapping[str, Operation]) -> UnknownOperationError:
    if name in service_model().operation_names:
        return UnknownOperationError(
            f"{name} is not part of the local SageMaker runtime. It has: {', '.join(sorted(known))}"
        )
    return UnknownOperationError(f"SageMaker has no operation {name!r}")


def _check_invocation(name: str, body: bytes) -> None:
    shape = service_model("sagemaker-runtime").shape_for("EndpointName")
    pattern = shape.metadata["pattern"]
    if len(name) > shape.metadata["max"] or not matches(pattern, name):
        raise ValidationError(
            violation_message(
                [
                    f"Value '{name}' at 'endpointName' failed to satisfy constraint: "
                    f"Member must satisfy regular expression pattern: {pattern}"
                ]
            )
        )
    if len(body) > _MAX_INVOCATION_BYTES:
        raise ValidationError(
            f"The request body has {len(body)} bytes; an endpoint takes at most {_MAX_INVOCATION_BYTES}. "
            "Send a smaller image."
        )


def _model_error(status: int, content: bytes) -> ModelError:
    text = content.decode(errors="replace")
    side = "client" if status < 500 else "server"
    return ModelError(f'Received {side} error ({status}) from primary with message "{text}".', status, text)


def _request_id() -> dict[str, str]:
    return {"x-amzn-RequestId": str(uuid.uuid4())}


def _is_runtime(request: HttpRequest) -> bool:
    return request.url.path.startswith("/endpoints/")


def _api_error(request: HttpRequest, error: Exception) -> Response:
    """The error in the form of the service: JSON 1.1 of SageMaker or REST-JSON of SageMaker Runtime."""
    if not isinstance(error, ApiError):
        raise error
    if not _is_runtime(request):
        return _error_response(error.status, error.code, {"__type": error.code, "message": error.message})
    code = "ValidationError" if error.code == "ValidationException" else error.code
    body: dict[str, Any] = {"Message": error.message, "message": error.message}
    if isinstance(error, ModelError):
        body |= {
            "OriginalStatusCode": error.original_status,
            "OriginalMessage": error.original_message,
            "LogStreamArn": error.log_stream_arn,
        }
    return _error_response(error.status, code, body)


def _storage_error(request: HttpRequest, error: Exception) -> Response:
    """A full disk is an error that the caller can act on; other operating system errors are failures."""
    if not is_disk_full(error):
        raise error
    return _api_error(
        request, InsufficientStorageError(f"The local SageMaker's disk is full ({error}). {FREE_SPACE}")
    )


def _internal_failure(request: HttpRequest, error: Exception) -> Response:
    """An unexpected error. Starlette raises it again afterwards, and the server logs its traceback."""
    code = "InternalFailure"
    message = f"{type(error).__name__}: {error}. The local SageMaker's log has the traceback."
    logger.error("%s %s failed: %s", request.method, request.url.path, message)
    if "x-amz-target" in request.headers or _is_runtime(request):
        return _error_response(500, code, {"__type": code, "message": message, "Message": message})
    error_element = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    return Response(f"<ErrorResponse>{error_element}</ErrorResponse>", 500, media_type="application/xml")


def _error_response(status: int, code: str, body: dict[str, Any]) -> Response:
    return Response(
        json.dumps(body),
        status,
        media_type=_JSON_1_1,
        headers={"x-amzn-ErrorType": code, **_request_id()},
    )
