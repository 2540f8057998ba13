"""Command line of the local SageMaker: `python -m local_sagemaker --root DIR --port 4600`."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from local_sagemaker.aws_services import AwsServices
from local_sagemaker.gateway import build_app
from local_sagemaker.hosting.service import Hosting
from local_sagemaker.objects import Objects
from local_sagemaker.platform import Platform, Service, Settings
from local_sagemaker.store import Store
from local_sagemaker.tags import Tags
from local_sagemaker.training.jobs import TrainingJobs
from local_sagemaker.tuning.jobs import TuningJobs

logger = logging.getLogger("local_sagemaker")

_GRACE = 5  # seconds that open connections get at the end


class StartError(Exception):
    """The runtime cannot start; the text is for the person at the command line."""


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGTERM, _exit)
    _allow_open_files()
    try:
        serve(_settings(arguments))
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError when the root or the port is not free."""
    with _locked(settings.root), _bound(settings.host, settings.port) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        _describe(settings)
        with closing(Store(settings.root / "store.sqlite")) as store:
            app = _app(Platform(settings, store))
            server = uvicorn.Server(
                uvicorn.Config(
                    app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE, lifespan="on"
                )
            )
            logger.info("Serving on %s, state in %s", settings.url, settings.root)
            server.run(sockets=[listener])
        if not server.started:
            raise StartError("a service could not resume; its traceback is above")


def _settings(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m local_sagemaker", description="SageMaker on this machine."
    )
    default = Settings(Path(".local/sagemaker"), Path(__file__).parent / "images" / "images.yaml")
    parser.add_argument("--root", type=Path, default=default.root, help="folder for all state (%(default)s)")
    parser.add_argument(
        "--images", type=Path, default=default.images, help="file that maps images to environments"
    )
    parser.add_argument("--host", default=default.host, help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=default.port, help="port, 0 for any free one (%(default)s)"
    )
    parser.add_argument("--region", default=default.region, help="AWS region in ARNs (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.images.is_file():
        parser.error(f"there is no images file {options.images}; pass --images FILE")
    return Settings(
        options.root.resolve(), options.images.resolve(), options.host, options.port, options.region
    )


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Hold the root for this process; the kernel releases it however the process ends."""
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
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StartError(
                f"cannot listen on {host} port {port}: {error.strerror}; "
                "stop what uses it or pass another --port"
            ) from error
        yield listener


def _describe(settings: Settings) -> None:
    """Leave `runtime.json` for people and tools that look for the running process."""
    document = {"pid": os.getpid(), "url": settings.url, "region": settings.region}
    (settings.root / "runtime.json").write_text(json.dumps(document) + "\n")


def _described(root: Path) -> str:
    try:
        document = json.loads((root / "runtime.json").read_text())
        return f"process {document['pid']} at {document['url']}"
    except (OSError, ValueError, KeyError):
        return "process unknown"


def _app(platform: Platform) -> Starlette:
    aws = AwsServices(platform)
    objects = Objects(aws.s3)
    training = TrainingJobs(platform, objects)
    hosting = Hosting(platform, objects)
    services: list[Service] = [aws, training, TuningJobs(platform, training), hosting, Tags(platform)]
    return build_app(services, hosting, aws)


def _allow_open_files() -> None:
    """As many as the system permits: a part of an upload under way and a connection hold one each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
