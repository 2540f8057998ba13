"""Command line of the local SageMaker: `python -m local_sagemaker --root DIR --port 4600`."""

from __future__ import annotations

import argparse
import logging
import resource
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn

from local_sagemaker.access.middleware import Access
from local_sagemaker.access.request import is_host_name
from local_sagemaker.context import Context, Settings
from local_sagemaker.gateway import build_app
from local_sagemaker.image_environments import ImagesFileError
from local_sagemaker.operations import SageMaker
from local_sagemaker.patterns import number
from local_sagemaker.startup import (
    StartError,
    listening_socket,
    locked_root,
    own_credentials,
    write_runtime_file,
)
from local_sagemaker.store import Store

logger = logging.getLogger("local_sagemaker")

_GRACE = 5  # seconds for open connections at the end


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. A failed start prints one line."""
    settings = _settings(arguments)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _exit)
    _allow_open_files()
    try:
        serve(settings)
    except (StartError, ImagesFileError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError or ImagesFileError."""
    with locked_root(settings.root), listening_socket(settings.host, settings.port) as listener:
        port = listener.getsockname()[1]
        settings = replace(settings, port=port, credentials=own_credentials(settings.credentials_file))
        with closing(_store(settings.root)) as store:
            sagemaker = SageMaker.of(Context(settings, store))
            app = build_app(sagemaker.operations(), sagemaker.services(), sagemaker.hosting, sagemaker.aws)
            write_runtime_file(settings)
            server = uvicorn.Server(
                uvicorn.Config(
                    Access(app, settings),
                    log_config=None,
                    access_log=False,
                    timeout_graceful_shutdown=_GRACE,
                    lifespan="on",
                )
            )
            logger.info("Serving on %s, state in %s", settings.url, settings.root)
            server.run(sockets=[listener])
        if not server.started:
            raise StartError("a service could not resume; its traceback is above")


def _store(root: Path) -> Store:
    path = root / "store.sqlite"
    try:
        return Store(path)
    except sqlite3.DatabaseError as error:
        raise StartError(
            f"cannot read the state in {path}: {error}; free some disk space, "
            "or move the folder away to start afresh"
        ) from error


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m local_sagemaker", description="SageMaker on this machine."
    )
    default = Settings(Path(".local/sagemaker"), Path(__file__).parents[2] / "images" / "images.yaml")
    parser.add_argument("--root", type=Path, default=default.root, help="folder for all state (%(default)s)")
    parser.add_argument(
        "--images", type=Path, default=default.images, help="file that maps images to environments"
    )
    parser.add_argument("--host", default=default.host, help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=_port, default=default.port, help="port, 0 for any free one (%(default)s)"
    )
    parser.add_argument("--region", default=default.region, help="AWS region in ARNs (%(default)s)")
    parser.add_argument(
        "--allowed-host",
        type=_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a name, beside localhost, by which clients may address it; may be repeated",
    )
    parser.add_argument(
        "--require-signatures",
        action="store_true",
        help="refuse requests that are not signed with the keys of --credentials",
    )
    parser.add_argument(
        "--credentials",
        type=Path,
        metavar="FILE",
        help="file of the pair of keys, made at the first start (ROOT/credentials.json)",
    )
    options = parser.parse_args(arguments)
    if not options.images.is_file():
        parser.error(f"there is no images file {options.images}; pass --images FILE")
    return Settings(
        options.root.resolve(),
        options.images.resolve(),
        options.host,
        options.port,
        options.region,
        tuple(options.allowed_host),
        options.require_signatures,
        own_credentials_file=options.credentials and options.credentials.resolve(),
    )


def _port(text: str) -> int:
    port = number(text)
    if port is None or port > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; pass a number from 0 to 65535")
    return port


def _host_name(text: str) -> str:
    if not is_host_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name; pass one without scheme and port")
    return text.lower()


def _allow_open_files() -> None:
    """Allow as many as the system permits: every connection and every part of an upload holds one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
