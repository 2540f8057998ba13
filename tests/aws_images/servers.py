"""Starts model servers for the tests, and asks them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCAL_SERVER = (
    Path(__file__).parents[2] / "local_sagemaker" / "src" / "local_sagemaker" / "hosting" / "serve.py"
)
TRAINING_PYTHON = Path(sys.prefix).parent / "training" / "bin" / "python"  # of the local images


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def poll(condition: Callable[[], bool], seconds: float, waiting_for: str) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {waiting_for}")
        time.sleep(0.2)


@dataclass(frozen=True)
class Server:
    """A model server: where it takes requests, and where it says that it is healthy."""

    requests: str
    health: str

    def status(self) -> int:
        """The status of the health check; 0 where nothing listens."""
        return _call(urllib.request.Request(self.health), 10)[0]  # noqa: S310

    def ask(self, body: bytes, content_type: str = "image/jpeg", seconds: float = 60) -> tuple[int, str]:
        """Status and text of the response to one request; status 0 where none came in time."""
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = urllib.request.Request(self.requests, body, headers, method="POST")  # noqa: S310
        return _call(request, seconds)

    def probabilities(self, image: bytes) -> Mapping[str, float]:
        status, text = self.ask(image)
        assert status == 200, text
        return {guess["class"]: guess["probability"] for guess in json.loads(text)["predictions"]}


def _call(request: urllib.request.Request, seconds: float) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:  # noqa: S310
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@contextmanager
def started(
    command: list[str], log: Path, environment: Mapping[str, str], cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its output in `log`, ended at the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM if process.poll() is None else 0)
        process.wait(30)


@contextmanager
def local_server(name: str, model: Path, folder: Path) -> Iterator[Server]:
    """The local SageMaker's server around a model that lies in `<folder>/opt_ml/model`."""
    port_file = folder / "port"
    command = [str(TRAINING_PYTHON), "-P", str(LOCAL_SERVER), "--server", name, "--port", "0"]
    command += ["--port-file", str(port_file), "--failure-file", str(folder / "failure")]
    environment = {"SAGEMAKER_BASE_DIR": str(model.parent), "SAGEMAKER_PROGRAM": "inference.py"}
    with started(command, folder / "local.log", environment, folder):
        poll(port_file.exists, 60, "the local server's port")
        base = f"http://127.0.0.1:{port_file.read_text()}"
        server = Server(f"{base}/invocations", f"{base}/ping")
        poll(lambda: server.status() == 200, 60, "the local server")
        yield server
