"""Starts, finds and stops the two services: the local SageMaker, and Airflow in `standalone` mode.

A service is a session of its own, remembered in a file by process id and start time: a process id that the
system has given to somebody else since is never signalled. Both services listen on 127.0.0.1 alone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from demo.aws import keys
from demo.settings import REGION, ROOT, DemoError, Settings

HOST = "127.0.0.1"
START_SECONDS = 180.0
STOP_SECONDS = 10.0  # idle services take 5; a scheduler whose task is running waits for it without end
POLL_SECONDS = 0.25
RECORDED_CALLS = "RECORDED_CALLS"  # names a file for the AWS operations that Airflow's processes call
JOB_VARIABLE = "LOCAL_SAGEMAKER_PROCESS"  # in the environment of everything that the local SageMaker runs


@dataclass(frozen=True)
class Service:
    """A process started here. `created` is its start time in seconds since the epoch, as psutil gives it."""

    name: str
    pid: int
    created: float
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def process(self) -> psutil.Process | None:
        """The process, or None where it has ended or its id belongs to another one now."""
        try:
            process = psutil.Process(self.pid)
            return process if alive(process) and abs(process.create_time() - self.created) < 1.0 else None
        except psutil.NoSuchProcess:
            return None


def record(settings: Settings, name: str) -> Path:
    return settings.local / "run" / f"{name}.json"


def log_file(settings: Settings, name: str) -> Path:
    return settings.logs / f"{name}.log"


def find(settings: Settings, name: str) -> Service | None:
    """The running service of this name, None where there is none."""
    try:
        service = Service(**json.loads(record(settings, name).read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return service if service.process() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def claim_port(port: int, variable: str) -> int:
    """The port to listen on, any free one for 0; DemoError naming `variable` where another program has it."""
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise DemoError(
                f"Port {port} cannot be used ({error.strerror}): stop the program that has it, "
                f"or choose another port with {variable}=<port> ({variable}=0 takes any free one)"
            ) from error
    return port


def check_ports(settings: Settings) -> None:
    """Raise DemoError for a port that a service still to be started could not have, before any is started."""
    wanted = {"sagemaker": settings.sagemaker_port, "airflow": settings.airflow_port}
    for name, port in wanted.items():
        if find(settings, name) is None:
            claim_port(port, f"{name.upper()}_PORT")


def clean_environment() -> dict[str, str]:
    """The caller's environment without its Airflow and AWS settings, which must not reach the services."""
    prefixes = ("AIRFLOW", "AWS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {name: os.environ[name] for name in ("AWS_CA_BUNDLE",) if name in os.environ}


def start(
    settings: Settings, name: str, port: int, command: list[str], environment: Mapping[str, str]
) -> Service:
    """Start a service in its own session, its output in its log file."""
    log = log_file(settings, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    service = Service(name, process.pid, psutil.Process(process.pid).create_time(), port)
    path = record(settings, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(service)))
    return service


def tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def wait_until_ready(settings: Settings, service: Service, ready: Callable[[str], bool]) -> None:
    """Poll until `ready(url)`; DemoError with the end of the log where the service ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    log = log_file(settings, service.name)
    while time.monotonic() < deadline:
        if service.process() is None:
            raise DemoError(f"{service.name} ended while starting:\n{tail(log)}\nWhole log: {log}")
        try:
            if ready(service.url):
                return
        except httpx.TransportError:
            pass
        time.sleep(POLL_SECONDS)
    raise DemoError(f"{service.name} was not ready within {START_SECONDS:.0f} s. Log: {log}")


def sagemaker_ready(url: str) -> bool:
    response = httpx.get(f"{url}/_local/health", timeout=2.0)
    return response.status_code == 200 and response.json().get("status") == "ready"


def airflow_ready(url: str) -> bool:
    """Whether the API server responds and the scheduler, DAG processor and triggerer report in."""
    response = httpx.get(f"{url}/api/v2/monitor/health", timeout=5.0)
    parts = ("scheduler", "dag_processor", "triggerer")
    return response.status_code == 200 and all(
        (response.json().get(part) or {}).get("status") == "healthy" for part in parts
    )


def start_sagemaker(settings: Settings) -> Service:
    """The running local SageMaker, or a new one; does not wait until it is ready."""
    if running := find(settings, "sagemaker"):
        return running
    port = claim_port(settings.sagemaker_port, "SAGEMAKER_PORT")
    environment = clean_environment() | {"LOCAL_SAGEMAKER_ENVIRONMENTS": str(settings.environments)}
    command = [
        str(settings.environments / "sagemaker" / "bin" / "python"),
        *("-m", "local_sagemaker", "--root", str(settings.sagemaker_root)),
        *("--images", str(ROOT / "local_sagemaker" / "images" / "images.yaml")),
        *("--host", HOST, "--port", str(port)),
        *(["--require-signatures"] if settings.require_signatures else []),
    ]
    return start(settings, "sagemaker", port, command, environment)


def aws_connection(sagemaker_url: str, credentials: Path) -> str:
    """The connection `aws_default`. Only its endpoint tells this machine from AWS."""
    login, password = keys(credentials)
    extra = {"region_name": REGION, "endpoint_url": sagemaker_url}
    return json.dumps({"conn_type": "aws", "login": login, "password": password, "extra": extra})


def password_file(path: Path) -> Path:
    """The file of Airflow's simple auth manager, made once with a password for the user `admin`."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps({"admin": secrets.token_urlsafe(9)}))
    return path


def password(settings: Settings) -> str:
    """The password of Airflow's user `admin`."""
    return str(json.loads(password_file(settings.airflow_home / "passwords.json").read_text())["admin"])


def airflow_environment(settings: Settings, port: int, sagemaker_url: str) -> dict[str, str]:
    """Airflow's settings. Small pools and short intervals: two cores, one DAG, somebody watching."""
    passwords = password_file(settings.airflow_home / "passwords.json")
    url = f"http://{HOST}:{port}"
    binaries = settings.environments / "airflow" / "bin"
    return {
        "AIRFLOW_HOME": str(settings.airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__SCHEDULER__CATCHUP_BY_DEFAULT": "False",
        "AIRFLOW_CONN_AWS_DEFAULT": aws_connection(sagemaker_url, settings.credentials),
        "AIRFLOW_BINARY": str(binaries / "airflow"),
        # `standalone` looks for `airflow` on the PATH: our wrapper comes first.
        "PATH": os.pathsep.join(
            [str(ROOT / "demo" / "bin"), str(binaries), os.environ.get("PATH", os.defpath)]
        ),
    }


def recording(file: Path) -> dict[str, str]:
    """Variables that make Airflow's processes write the AWS operations that they call to a file."""
    return {RECORDED_CALLS: str(file), "PYTHONPATH": str(ROOT / "demo" / "recorder")}


def start_airflow(
    settings: Settings, sagemaker_url: str, overrides: Mapping[str, str] | None = None
) -> Service:
    """The running Airflow, or a new one; does not wait until it is ready.

    `overrides` are variables of its environment that differ from the demonstration's.
    """
    if running := find(settings, "airflow"):
        return running
    port = claim_port(settings.airflow_port, "AIRFLOW_PORT")
    environment = clean_environment() | airflow_environment(settings, port, sagemaker_url)
    if RECORDED_CALLS in os.environ:
        environment |= recording(Path(os.environ[RECORDED_CALLS]))
    environment |= overrides or {}
    command = [str(settings.environments / "airflow" / "bin" / "airflow"), "standalone"]
    return start(settings, "airflow", port, command, environment)


def descendants(service: psutil.Process) -> list[psutil.Process]:
    """What the service started: its children, theirs, and whoever else is in its session."""
    members = set(service.children(recursive=True))
    for candidate in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(candidate.pid) == service.pid and candidate != service:
                members.add(candidate)
    return list(members)


def jobs(root: Path) -> list[psutil.Process]:
    """The local SageMaker's jobs and model servers, which outlive it: marked by their folder below `root`."""
    members = []
    for candidate in psutil.process_iter():
        with suppress(psutil.Error):
            if candidate.environ().get(JOB_VARIABLE, "").startswith(f"{root}{os.sep}"):
                members.append(candidate)
    return members


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and that nobody has waited for yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run after `STOP_SECONDS`."""
    deadline = time.monotonic() + STOP_SECONDS
    while (running := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return running


def end(processes: list[psutil.Process]) -> None:
    """Ask the processes to end, and end those that do not within `STOP_SECONDS`."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    stubborn = wait_for_end(processes)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_end(stubborn)


def stop(settings: Settings, name: str) -> bool:
    """End a service that was started here, then what it started; False where it was not running."""
    service = find(settings, name)
    process = service.process() if service else None
    if process is not None:
        members = descendants(process)
        if name == "airflow":  # `standalone` reads its components' output; without it they hang at their end
            end(process.children())
        end([process])
        end(members)
    if name == "sagemaker":
        end(jobs(settings.sagemaker_root.resolve()))
    record(settings, name).unlink(missing_ok=True)
    return process is not None
