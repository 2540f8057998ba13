"""Startup: exclusive use of the root folder and the port, the keys, and `runtime.json`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_sagemaker.context import Credentials, Settings


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


def own_credentials(path: Path) -> Credentials:
    """The pair of keys in this file, made at the first start and readable by the owner alone.

    The file is as `credential_process` of AWS's configuration reads it: `credential_process = cat FILE`.
    Raises StartError for a file that others can read, or that holds no keys.
    """
    try:
        if not path.exists():
            _write_credentials(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        document = json.loads(path.read_text())
        keys = document["AccessKeyId"], document["SecretAccessKey"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartError(f"cannot use {path}: {error!r}; delete it, and new keys are made") from error
    if not all(isinstance(key, str) and key for key in keys):
        raise StartError(f"cannot use {path}: its keys are no text; delete it, and new keys are made")
    if mode & 0o077:
        raise StartError(
            f"{path} has the mode {mode:o}, so that others can read it; delete it, and new keys are made"
        )
    return Credentials(*keys)


def _write_credentials(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "Version": 1,
        "AccessKeyId": "LOCAL" + secrets.token_hex(8).upper(),
        "SecretAccessKey": secrets.token_urlsafe(30),
    }
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps(document) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


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
