"""Servers that keep the notifications they receive: SMTP, and HTTP for Slack's webhook and SNS."""

from __future__ import annotations

import http.server
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any, cast


class MailServer(socketserver.ThreadingTCPServer):
    """The part of SMTP (RFC 5321) that a client needs to deliver a mail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailSession)
        self.recipients: list[str] = []
        self.mails: list[EmailMessage] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _MailSession(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast("MailServer", self.server)
        self._reply("220 ready")
        for line in self.rfile:
            command = line.decode().strip()
            verb = command[:4].upper()
            if verb == "RCPT":
                server.recipients.append(command)
            if verb == "DATA":
                self._reply("354 go on")
                server.mails.append(self._mail())
            self._reply("221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return

    def _mail(self) -> EmailMessage:
        lines = []
        for line in self.rfile:
            text = line.decode().rstrip("\r\n")
            if text == ".":
                break
            lines.append(text.removeprefix("."))
        return message_from_string("\n".join(lines), policy=policy.default)

    def _reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


class WebServer(http.server.ThreadingHTTPServer):
    """Accepts every POST and responds with `response`."""

    def __init__(self, response: bytes = b"ok", status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _WebRequest)
        self.response = response
        self.status = status
        self.bodies: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _WebRequest(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast("WebServer", self.server)
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(server.status)
        self.end_headers()
        self.wfile.write(server.response)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: tests read the bodies."""


@contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[None]:
    """Let a server serve in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
