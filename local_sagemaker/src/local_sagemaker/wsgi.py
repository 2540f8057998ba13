"""A WSGI app behind ASGI: the whole request goes to a thread and the whole response comes back.

a2wsgi's own middleware switches threads for every chunk, which costs more than a small object itself.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from wsgiref.types import WSGIApplication, WSGIEnvironment

from a2wsgi.wsgi import build_environ
from starlette.types import Receive, Scope, Send

_IN_MEMORY_BODY = 8 * 1024 * 1024
_CHUNK = 1024 * 1024

Headers = list[tuple[str, str]]


class IncompleteBodyError(Exception):
    """The client disconnected in the middle of its request."""


@dataclass(frozen=True)
class FileSlice:
    """Bytes `start` to `start + length` of a file, sent in chunks."""

    path: Path
    start: int
    length: int

    def chunks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.length
            while left and (chunk := file.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response; header values are text."""

    status: int
    headers: Headers
    body: bytes | FileSlice = b""

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300


def call_app(app: WSGIApplication, environ: WSGIEnvironment) -> HttpResponse:
    """The app's response to a request."""
    started: list[Any] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, _exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = [int(status.split(" ", 1)[0]), headers]
        return written.append

    chunks = app(environ, start_response)
    try:
        written.extend(chunks)
    finally:
        getattr(chunks, "close", lambda: None)()
    return HttpResponse(started[0], started[1], b"".join(written))


async def serve(
    respond: Callable[[WSGIEnvironment], HttpResponse],
    threads: Executor,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Receive the request, call `respond` in a thread, send the response.

    Raises IncompleteBodyError if the client disconnects.
    """
    loop = asyncio.get_running_loop()
    with closing(await _received(scope, receive)) as body:
        response = await loop.run_in_executor(threads, respond, _environ(scope, body))
    headers = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in response.headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(response.body, FileSlice):
        chunks = response.body.chunks()
        while chunk := await loop.run_in_executor(threads, next, chunks, b""):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await send({"type": "http.response.body", "body": response.body})


async def _received(scope: Scope, receive: Receive) -> IO[bytes]:
    """The request's body; a large one is kept in a temporary file."""
    body = tempfile.SpooledTemporaryFile(_IN_MEMORY_BODY)  # noqa: SIM115 - the caller closes it
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            body.close()
            raise IncompleteBodyError(
                f"{scope['method']} {scope['path']}: the client disconnected before the body was complete"
            )
        body.write(message.get("body", b""))
        more = message.get("more_body", False)
    return body


def _environ(scope: Scope, body: IO[bytes]) -> WSGIEnvironment:
    size = body.tell()
    body.seek(0)
    environ: WSGIEnvironment = dict(build_environ(scope, body))  # type: ignore[arg-type]  # any file will do
    return environ | {"CONTENT_LENGTH": str(size), "wsgi.input_terminated": True}
