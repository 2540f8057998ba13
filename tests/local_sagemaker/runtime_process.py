"""A local SageMaker in its own process, as a user starts it, for tests to talk to, kill and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
from botocore.config import Config

REPOSITORY = Path(__file__).parents[2]
REGION = "us-east-1"
_START_SECONDS = 60.0

_Value = TypeVar("_Value")


def environment_python(name: str) -> Path:
    """The interpreter of an environment beside this one: `airflow`, `sagemaker` or `training`."""
    return Path(sys.prefix).parent / name / "bin" / "python"


def wait_for(
    what: Callable[[], _Value | None], seconds: float, waiting_for: str, every: float = 0.05
) -> _Value:
    """Poll until `what` returns something true. Raises TimeoutError naming what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(every)
    raise TimeoutError(f"waited {seconds} s for {waiting_for}")


@dataclass
class RuntimeProcess:
    """`python -m local_sagemaker` on a root. The first start picks a free port, later ones take the same."""

    root: Path
    images: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    options: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.root / "runtime.log"

    @property
    def pid(self) -> int:
        return self._running().pid

    def command(self) -> list[str]:
        python = environment_python("sagemaker")
        command = [str(python), "-m", "local_sagemaker", "--root", str(self.root), "--port", str(self.port)]
        images = [] if self.images is None else ["--images", str(self.images)]
        return [*command, *images, *self.options]

    def start(self) -> RuntimeProcess:
        """Start and wait until it is ready. Raises RuntimeError with the log's end if it does not start."""
        self.root.mkdir(parents=True, exist_ok=True)
        described = self.root / "runtime.json"
        described.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=REPOSITORY, stderr=log, stdout=log, env={**os.environ, **self.environment}
            )
        try:
            self.port = wait_for(lambda: _port(described) or self._exited(), _START_SECONDS, "runtime.json")
            wait_for(lambda: self._healthy() or self._exited(), _START_SECONDS, "/_local/health")
        except TimeoutError as error:
            self.kill()
            raise RuntimeError(f"the local SageMaker did not come up: {self.log()[-3000:]}") from error
        if self._exited():
            raise RuntimeError(f"the local SageMaker ended: {self.log()[-3000:]}")
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash does it."""
        process = self._running()
        process.kill()
        process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        return process.wait(timeout=30)

    def close(self) -> None:
        """Stop it if it still runs."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    @property
    def keys(self) -> dict[str, str]:
        """Arguments of a boto3 session: any keys, or the runtime's own where it requires signatures."""
        if "--require-signatures" not in self.options:
            return {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        made = json.loads((self.root / "credentials.json").read_text())
        return {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of this runtime: `runtime.client("sagemaker")`."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name=REGION,
            **self.keys,
            config=Config(**{"retries": {"total_max_attempts": 1}, **config}),
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the local SageMaker was not started")
        return self._process

    def _exited(self) -> int:
        """A true value once the process is gone."""
        return 0 if self._running().poll() is None else 1

    def _healthy(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/_local/health", timeout=5).json()["status"] == "ready")
        except httpx.TransportError:
            return False


def _port(described: Path) -> int | None:
    try:
        return int(json.loads(described.read_text())["url"].rpartition(":")[2])
    except (FileNotFoundError, ValueError):
        return None


def run_sdk(runtime: RuntimeProcess, script: str, *arguments: str) -> None:
    """Run a script that uses SageMaker's Python SDK, which Airflow's environment has, on this runtime.

    Raises AssertionError with the script's stderr where it fails.
    """
    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
    done = subprocess.run(
        [str(environment_python("airflow")), "-c", script, *arguments],
        env={**os.environ, **credentials, "AWS_ENDPOINT_URL": runtime.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-2000:]
