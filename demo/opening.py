"""Opens Airflow's pages in the browser, signed in.

Cookies know no ports. So a page on a free port of this machine, which answers once, under a random path,
gives the browser the cookie that Airflow's own login would, and sends it on to Airflow.
"""

from __future__ import annotations

import secrets
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

from demo.services import HOST

COOKIE = "_token"  # of Airflow's session
PATIENCE_SECONDS = 120.0


def open_signed_in(url: str, token: str, show: Callable[[str], object] = webbrowser.open) -> bool:
    """Open `url`, a page of Airflow, with the token of a login; whether the browser came for it in time."""
    path = f"/{secrets.token_urlsafe(24)}"
    seen = False

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal seen
            if self.path != path or seen:
                self.send_error(404)
                return
            seen = True
            self.send_response(302)
            self.send_header("Set-Cookie", f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax")
            self.send_header("Location", url)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: the address is a key."""

    class Server(HTTPServer):
        timeout = PATIENCE_SECONDS
        late = False

        def handle_timeout(self) -> None:
            self.late = True

    with Server((HOST, 0), Handler) as server:
        show(f"http://{HOST}:{server.server_port}{path}")
        while not seen and not server.late:
            server.handle_request()
    return seen
