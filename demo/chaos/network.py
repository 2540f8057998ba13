"""The network between Airflow and the local SageMaker: a proxy that can be cut, slow, silent or refuse.

Bytes pass unchanged, so that signatures and everything else of HTTP stay what they are. Only a refusal is a
response of its own, in the form of the service that was asked.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

import h11

HOST = "127.0.0.1"
CHUNK = 65536
DELAY_SECONDS = 2.0  # of every chunk, in each direction
POLL_SECONDS = 0.1

CUT, DELAY, SILENCE, THROTTLING, ERROR, LOST = (
    "cut",
    "slow",
    "silent",
    "throttling",
    "error 500",
    "responses lost",
)
MODES = (CUT, DELAY, SILENCE, THROTTLING, ERROR, LOST)


@dataclass(frozen=True)
class Refusal:
    status: int
    content_type: str
    body: bytes


class Network:
    """A proxy in a thread of its own. `target` is the port to which it leads, settable at any time."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self._mode: str | None = None
        self._until = 0.0
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._open.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def disturb(self, mode: str, seconds: float) -> None:
        """From now on, and for some seconds, every connection is as `mode` says."""
        self._mode, self._until = mode, time.monotonic() + seconds

    @property
    def mode(self) -> str | None:
        """How it is disturbed at this moment, None if it is not."""
        return self._mode if time.monotonic() < self._until else None

    def wait(self) -> None:
        """Until it is not disturbed any more."""
        while self.mode is not None:
            time.sleep(POLL_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, HOST, 0))
        self.port = server.sockets[0].getsockname()[1]
        self._open.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.mode in {THROTTLING, ERROR}:
                await self._refuse(reader, writer)
            elif await self._passes(to_client=False):
                await self._forward(reader, writer)
        except OSError:  # one side has gone, as happens on a network
            pass
        finally:
            writer.transport.abort()

    async def _passes(self, *, to_client: bool) -> bool:
        """Whether bytes may go on now; waits where they are late."""
        mode = self.mode
        if mode == DELAY:
            await asyncio.sleep(DELAY_SECONDS)
        while self.mode == SILENCE:
            await asyncio.sleep(POLL_SECONDS)
        return mode in {None, DELAY} or (mode == LOST and not to_client)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_target, to_target = await asyncio.open_connection(HOST, self.target)
        try:
            directions = [
                asyncio.create_task(self._pump(reader, to_target, to_client=False)),
                asyncio.create_task(self._pump(from_target, writer, to_client=True)),
            ]
            done, others = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if any(
                task.exception() is None and task.result() for task in done
            ):  # one side ended as it should
                await asyncio.wait(others, timeout=1.0)
            for task in others:
                task.cancel()
        finally:
            to_target.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool
    ) -> bool:
        """Pass bytes on; True at the end of the stream, False where the network broke it off."""
        while chunk := await reader.read(CHUNK):
            if not await self._passes(to_client=to_client):
                return False
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return True

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and refuse it, as the service that it asks would."""
        connection = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    break
                connection.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or event is h11.PAUSED:
                break
        if request is None:
            return
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in request.headers}
        answer = refusal(headers, self.mode or ERROR)
        head = h11.Response(
            status_code=answer.status,
            reason=HTTPStatus(answer.status).phrase.encode(),  # botocore needs one after Expect: 100-continue
            headers=[
                ("Content-Type", answer.content_type),
                ("Content-Length", str(len(answer.body))),
                ("Connection", "close"),
            ],
        )
        body = b"" if request.method == b"HEAD" else answer.body
        for part in (head, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(part) or b"")
        await writer.drain()
        writer.write_eof()
        await reader.read(CHUNK)  # the client has what it needs; an abort now could take it back


def refusal(headers: Mapping[str, str], mode: str) -> Refusal:
    """What a service of AWS responds when it throttles or fails, by its protocol."""
    throttles = mode == THROTTLING
    scope = re.search(r"/([a-z0-9-]+)/aws4_request", headers.get("authorization", ""))
    service = scope.group(1) if scope else "s3"
    message = "Rate exceeded" if throttles else "An internal error occurred"
    if "x-amz-target" in headers or service == "sagemaker":
        code = "ThrottlingException" if throttles else "InternalFailure"
        body = json.dumps({"__type": code, "message": message}).encode()
        return Refusal(400 if throttles else 500, "application/x-amz-json-1.1", body)
    if service == "s3":
        code = "SlowDown" if throttles else "InternalError"
        xml = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return Refusal(503 if throttles else 500, "application/xml", xml.encode())
    code = "Throttling" if throttles else "InternalFailure"
    xml = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return Refusal(400 if throttles else 500, "text/xml", xml.encode())
