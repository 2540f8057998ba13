"""One request over HTTP, as any program could send it, and what its response must be."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from tests.fuzz.trying import HANG_SECONDS

NOT_IMPLEMENTED = 501  # S3's own word for what it does not do, and the only 5xx that is not a fault


@dataclass(frozen=True)
class Request:
    """A request. `target` is path and query; what HTTP does not allow in it is sent percent-encoded."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def succeeded(self) -> bool:
        return self.status < 400


def send(url: str, request: Request) -> Response:
    """The response. Raises OSError or http.client.HTTPException where there is none in HANG_SECONDS."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=HANG_SECONDS)
    try:
        target = quote(request.target.encode(errors="surrogatepass"), safe="/%?&=+:;@!$'()*,~[]#")
        connection.putrequest(request.method, target, skip_accept_encoding=True)
        for name, value in request.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding"}:
                connection.putheader(name, value.encode("latin-1", errors="replace"))
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body)
        response = connection.getresponse()
        return Response(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def check(url: str, request: Request) -> Response:
    """Send it. Raises AssertionError for a server error, a traceback in the body, or no response."""
    try:
        response = send(url, request)
    except (OSError, http.client.HTTPException) as error:
        raise AssertionError(f"no response ({type(error).__name__}: {error}) to {request}") from error
    assert response.status < 500 or response.status == NOT_IMPLEMENTED, (
        f"{response.status} {response.body[:500]!r} to {request}"
    )
    assert b"Traceback (most recent call last)" not in response.body, (
        f"a traceback in the response to {request}"
    )
    return response


def send_raw(url: str, text: bytes, seconds: float) -> bool:
    """Bytes that may be no HTTP. The server may close the connection; it must go on responding to others."""
    address = urlsplit(url)
    with socket.create_connection(
        (address.hostname or "", address.port or 80), timeout=seconds
    ) as connection:
        try:
            connection.sendall(text)
            first = connection.recv(65536)
        except OSError:
            first = b""
    check(url, Request("GET", "/_local/health"))
    return first.startswith(b"HTTP/1.1 2")
