"""One instance of an endpoint: a model server process that is started, polled, called and restarted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import urllib3

from local_sagemaker import processes
from local_sagemaker.processes import ProcessGroup, ProcessStartError

logger = logging.getLogger(__name__)

PING_SECONDS = 2.0  # the container contract's limit for a response to /ping
STOP_SECONDS = 10.0
MAX_BACKOFF_SECONDS = 30.0
MAX_CONNECTIONS = 64
SERVER = Path(__file__).with_name("serve.py")


class WorkerLostError(Exception):
    """The server ended before it responded; another one can take the request."""


class WorkerTimeoutError(Exception):
    """The server did not respond in time; it may still be working on the request."""


@dataclass(frozen=True)
class ContainerResponse:
    """The response of a container."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Instance:
    """How to start an instance. Each start has a numbered subfolder of `folder`; all share `log`."""

    id: str
    folder: Path
    log: Path
    python: Path
    server: str
    environment: Mapping[str, str]
    startup_seconds: float


class Worker:
    """The process of an instance across its restarts.

    `ready` and `in_flight` are guarded by `gate`, which is notified when they change. Any thread may call
    anything.
    """

    def __init__(self, instance: Instance, gate: threading.Condition) -> None:
        self.instance = instance
        self.ready = False
        self.in_flight = 0
        self.last_used = 0.0
        self.failure = ""
        self.failures = 0
        self._gate = gate
        self._lock = threading.Lock()
        self._stopped = False
        self._process: ProcessGroup | None = None
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._started = 0.0
        self._not_before = 0.0

    def tick(self) -> None:
        """One step: find or start the process, handle its end, or ping it."""
        with self._lock:
            if self._stopped:
                return
            if self._process is None:
                if time.monotonic() >= self._not_before:
                    self._begin()
            elif (code := self._process.exit_code()) is not None:
                self._end(self._failure_text() or f"The model server ended with exit code {code}.")
            elif not self.ready:
                self._probe()

    def call(self, body: bytes, headers: Mapping[str, str], seconds: float) -> ContainerResponse:
        """POST /invocations. Raises WorkerLostError or WorkerTimeoutError."""
        pool = self._pool
        if pool is None:
            raise WorkerLostError(self.instance.id)
        try:
            response = pool.urlopen(
                "POST", "/invocations", body=body, headers=headers, retries=False, timeout=max(seconds, 0.001)
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise WorkerTimeoutError(self.instance.id) from error
        except urllib3.exceptions.HTTPError as error:
            self.suspect()
            raise WorkerLostError(f"{self.instance.id}: {error}") from error
        return ContainerResponse(response.status, response.headers, response.data)

    def suspect(self) -> None:
        """Take it out of the traffic until it responds to a ping again."""
        with self._gate:
            self.ready = False

    def stop(self) -> None:
        """Stop the process for good, after the requests that it already has."""
        self.suspect()
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.stop(STOP_SECONDS)
            self._disconnect()

    def _begin(self) -> None:
        last = self._last_attempt()
        process = processes.find(self._attempt(last)) if last else None
        if process is None or not process.running():
            try:
                process = self._start(self._attempt(last + 1))
            except (ProcessStartError, OSError) as error:
                self._end(str(error))
                return
        self._process = process
        self._started = time.monotonic()

    def _start(self, folder: Path) -> ProcessGroup:
        instance = self.instance
        folder.mkdir(parents=True)
        command = [
            *(str(instance.python), "-P", str(SERVER), "--server", instance.server),
            *("--port", "0", "--port-file", str(folder / "port"), "--failure-file", str(folder / "failure")),
        ]
        return processes.start(
            folder, command, environment=instance.environment, cwd=folder, log=instance.log
        )

    def _probe(self) -> None:
        if self._pool is None:
            self._pool = self._connect()
        if self._pool is not None and _pings(self._pool):
            self.failures = 0
            with self._gate:
                self.ready = True
                self._gate.notify_all()
        elif time.monotonic() - self._started > self.instance.startup_seconds and self._process is not None:
            self._process.kill()
            self._end(f"/ping did not respond with 200 within {self.instance.startup_seconds:g} s.")

    def _connect(self) -> urllib3.HTTPConnectionPool | None:
        try:
            port = int((self._attempt(self._last_attempt()) / "port").read_text())
        except FileNotFoundError:
            return None
        return urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=MAX_CONNECTIONS)

    def _end(self, failure: str) -> None:
        logger.warning("Instance %s: %s", self.instance.id, failure)
        self._disconnect()
        backoff = min(2.0**self.failures - 1, MAX_BACKOFF_SECONDS)
        self._not_before = time.monotonic() + backoff
        with self._gate:
            self.ready = False
            self.failure = failure
            self.failures += 1
            self._gate.notify_all()

    def _disconnect(self) -> None:
        self._process = None
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _failure_text(self) -> str:
        try:
            return (self._attempt(self._last_attempt()) / "failure").read_text()
        except FileNotFoundError:
            return ""

    def _attempt(self, number: int) -> Path:
        return self.instance.folder / str(number)

    def _last_attempt(self) -> int:
        if not self.instance.folder.exists():
            return 0
        return max(
            (int(path.name) for path in self.instance.folder.iterdir() if path.name.isdecimal()), default=0
        )


def _pings(pool: urllib3.HTTPConnectionPool) -> bool:
    try:
        return pool.urlopen("GET", "/ping", retries=False, timeout=PING_SECONDS).status == 200
    except urllib3.exceptions.HTTPError:
        return False
