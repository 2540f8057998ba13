"""Startup: exclusive use of the root folder and the port, and `runtime.json`."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_sagemaker.context import Settings


class StartError(Exception):
    """The runtime cannot start; the text is one line for the user."""


@contextmanager
def locked_root(root: Path) -> Iterator[None]:
    """Lock the root for this process; the kernel unlocks it however the process ends. Raises StartError."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / "runtime.lock").open("a")
    except OSError as error:
        raise StartError(f"cannot write to {root}: {error.strerror}; choose another --root") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"{root} is in use by another local SageMaker ({_described(root)}); "
                "stop it or choose another --root"
            ) from error
        yield


@contextmanager
def listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens already: early clients wait until the server accepts. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it a response can wait 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            raise StartError(
                f"cannot listen on {host} port {port}: {error.strerror}; "
                "stop what uses it or pass another --port"
            ) from error
        yield listener


def write_runtime_file(settings: Settings) -> None:
    """Write `runtime.json`, which tells users and tools the process and its URL."""
    document = {"pid": os.getpid(), "url": settings.url, "region": settings.region}
    (settings.root / "runtime.json").write_text(json.dumps(document) + "\n")


def _described(root: Path) -> str:
    try:
        document = json.loads((root / "runtime.json").read_text())
        return f"process {document['pid']} at {document['url']}"
    except (OSError, ValueError, KeyError):
        return "process unknown"
