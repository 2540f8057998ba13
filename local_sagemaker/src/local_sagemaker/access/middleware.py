"""Decides on every request before it is routed; see `browsers`, `cors` and `signatures` for the rules."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from local_sagemaker.access.browsers import check_fetch_metadata, check_host, check_origin
from local_sagemaker.access.cors import Headers, matching_rule, preflight
from local_sagemaker.access.limits import check_declared_length, largest_body, too_large
from local_sagemaker.access.payloads import Payload
from local_sagemaker.access.request import AddressedRequest, RefusedError
from local_sagemaker.access.signatures import SignatureCheck
from local_sagemaker.context import Settings
from local_sagemaker.errors import ApiError

logger = logging.getLogger(__name__)

_LARGEST_WHOLE_BODY = 64 * 1024 * 1024  # bytes; endpoints take 25 MB, and S3 declares its bodies' hashes
_ANY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104 - of these, none is a name to be called by
_NOT_PASSED_ON = {b"cookie", b"origin"}  # browsers send cookies of other ports, such as Airflow's login
_OURS_TO_SEND = ("access-control-", "set-cookie")
_SANDBOX = "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox allow-downloads"
_ALWAYS_SENT: Headers = [("content-security-policy", _SANDBOX), ("x-content-type-options", "nosniff")]


class _BodyRefusedError(ApiError):
    """Stops the app from acting on a body that is refused; `Access` responds in its place."""


class Access:
    """The ASGI app around all others."""

    def __init__(self, app: ASGIApp, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._app = app
        own = [] if settings.host in _ANY_ADDRESS else [_as_host(settings.host)]
        self._bases = frozenset([*own, *settings.allowed_hosts])
        self._signatures = (
            SignatureCheck(settings.credentials, clock) if settings.require_signatures else None
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = AddressedRequest.of(scope, self._bases)
        try:
            cors = _check_page(request)
            if request.method == "OPTIONS":
                await _send_all(send, 200, cors, b"")
                return
            largest = largest_body(request)
            check_declared_length(request, largest)
            exchange = _Exchange(_bounded(receive, request, largest), send, cors)
            if self._signatures is not None and not request.is_health:
                await exchange.verify(self._signatures.begin(request))
            try:
                await self._app(_passed_on(scope, request), exchange.receive, exchange.send)
            finally:
                exchange.raise_refusal()
        except RefusedError as refused:
            logger.warning("Refused %s %s: %s", request.method, request.path[:200], refused.message)
            status, headers, body = request.refusal(refused)
            await _send_all(send, status, headers, body)


def _check_page(request: AddressedRequest) -> Headers:
    """Check what browsers say about the page that sent the request; the CORS headers of the response.

    Raises RefusedError.
    """
    check_host(request)
    if request.method == "OPTIONS":
        return preflight(request)
    rule = matching_rule(request)
    if rule is not None:
        return rule.response_headers(request.header("origin"))
    check_origin(request)
    check_fetch_metadata(request)
    return []


def _bounded(receive: Receive, request: AddressedRequest, largest: int) -> Receive:
    """`receive`, which raises RefusedError once the body has more than `largest` bytes, declared or not."""
    left = largest

    async def receive_bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large(request, largest)
        return message

    return receive_bounded


class _Exchange:
    """The messages between server and app: checks the body, and adds and removes headers of the response."""

    def __init__(self, receive: Receive, send: Send, cors: Headers) -> None:
        self._receive = receive
        self._send = send
        self._headers = _encoded([*_ALWAYS_SENT, *cors])
        self._payload: Payload | None = None
        self._body: bytes | None = None
        self._refused: RefusedError | None = None

    async def verify(self, payload: Payload) -> None:
        """Check the body by `payload`: now, where all of it is needed for that, else while the app reads it.

        Raises RefusedError.
        """
        self._payload = payload
        if not payload.must_be_complete:
            return
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(
                    "The client disconnected before the body was complete.", "IncompleteBody", 400
                )
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _LARGEST_WHOLE_BODY:
                limit = f"A body without x-amz-content-sha256 may have {_LARGEST_WHOLE_BODY} bytes."
                raise RefusedError(limit, "EntityTooLarge", 413)
        payload.feed(bytes(body))
        payload.finish()
        self._payload = None
        self._body = bytes(body)

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        try:
            message = await self._receive()
            if self._payload is not None and message["type"] == "http.request":
                self._check(self._payload, message)
        except RefusedError as refused:
            self._refused = refused
            raise _BodyRefusedError(refused.message) from refused
        return message

    @staticmethod
    def _check(payload: Payload, message: Message) -> None:
        payload.feed(message.get("body", b""))
        if not message.get("more_body", False):
            payload.finish()

    async def send(self, message: Message) -> None:
        if self._refused is not None:
            return
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", ())
                if not name.decode("latin1").lower().startswith(_OURS_TO_SEND)
            ]
            message = {**message, "headers": [*kept, *self._headers]}
        await self._send(message)

    def raise_refusal(self) -> None:
        if self._refused is not None:
            raise self._refused


def _passed_on(scope: Scope, request: AddressedRequest) -> dict[str, Any]:
    """The request as the app sees it: without cookies, and with the bucket of a virtual host in its path."""
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _NOT_PASSED_ON]
    passed = {**scope, "headers": headers}
    if request.virtual_bucket and request.is_s3:
        passed["path"] = f"/{request.virtual_bucket}{scope['path']}"
        passed["raw_path"] = f"/{request.virtual_bucket}{request.path}".encode("latin1")
    return passed


async def _send_all(send: Send, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
    length = [("content-length", str(len(body)))]
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": _encoded([*headers, *length, *_ALWAYS_SENT])})
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin1"), value.encode("latin1")) for name, value in headers]


def _as_host(address: str) -> str:
    """An address as a Host header has it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
