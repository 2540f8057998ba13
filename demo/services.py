"""Starts, finds and stops the services: the local SageMaker and Airflow, whose parts a supervisor attends to.

All listen on 127.0.0.1 alone. What runs is found by its record and its mark (`demo.processes`), whichever of
the processes, the supervisor included, has been killed.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from demo import supervisor
from demo.aws import keys, make_keys
from demo.processes import MARK_VARIABLE, STOP_SECONDS, end, jobs, kill, mark, members, send, wait_for_end
from demo.settings import REGION, ROOT, DemoError, Settings
from demo.supervisor import Part, PartState, Plan, State

HOST = "127.0.0.1"
START_SECONDS = 180.0
POLL_SECONDS = 0.25
DEATHS = 2  # of a part while it starts, after which waiting is no use
RECORDED_CALLS = "RECORDED_CALLS"  # names a file for the AWS operations that Airflow's processes call
SAGEMAKER = "sagemaker"
AIRFLOW = ("airflow-database", "api-server", "scheduler", "dag-processor", "triggerer")
PARTS = (SAGEMAKER, *AIRFLOW)


@dataclass(frozen=True)
class Service:
    """A service that runs: `sagemaker`, or `airflow`, which is there when its API server is."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def folder(settings: Settings) -> Path:
    """Where the supervisor keeps its plan and its state."""
    return settings.local / "run"


def log_file(settings: Settings, name: str) -> Path:
    return settings.logs / f"{name}.log"


def states(settings: Settings) -> State:
    return supervisor.read_state(folder(settings))


def find_supervisor(settings: Settings) -> list[psutil.Process]:
    """The supervisor that runs: by its record, or by its mark where it could not write one."""
    found = states(settings).supervisor
    process = found.process() if found else None
    return [process] if process else members(folder(settings), supervisor.NAME, None)


def supervised(settings: Settings) -> bool:
    """Whether the supervisor runs."""
    return bool(find_supervisor(settings))


def find(settings: Settings, name: str) -> Service | None:
    """The running service `sagemaker` or `airflow`, None where there is none."""
    plan, part = supervisor.read_plan(folder(settings)), "api-server" if name == "airflow" else name
    state = states(settings).parts.get(part)
    return Service(name, plan.ports[name]) if plan and state and state.running else None


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


def choose_ports(settings: Settings, only: Collection[str]) -> dict[str, int]:
    """The ports by service: those in use where a service runs. Raises DemoError for one that cannot be had.

    Port 0 is the last one, where that is still free, so that what runs need not learn another one.
    """
    plan = supervisor.read_plan(folder(settings))
    ports = {"sagemaker": settings.sagemaker_port, "airflow": settings.airflow_port}
    for name, part in {"sagemaker": SAGEMAKER, "airflow": "api-server"}.items():
        running = find(settings, name)
        if running:
            ports[name] = running.port
        elif part in only:
            last = plan.ports[name] if plan and part in plan.names else 0
            wanted = ports[name] or (last if is_free(last) else 0)
            ports[name] = claim_port(wanted, f"{name.upper()}_PORT")
    return ports


def is_free(port: int) -> bool:
    try:
        claim_port(port, "")
    except DemoError:
        return False
    return True


def clean_environment() -> dict[str, str]:
    """The caller's environment without its Airflow and AWS settings, which must not reach the services."""
    prefixes = ("AIRFLOW", "AWS_", "PYTHON", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {name: os.environ[name] for name in ("AWS_CA_BUNDLE",) if name in os.environ}


def tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def start(
    settings: Settings, only: Collection[str] = PARTS, overrides: Mapping[str, str] | None = None
) -> None:
    """Start what does not run of the parts in `only`; does not wait until they are ready.

    `overrides` are variables of Airflow's environment that differ from the demonstration's. A supervisor that
    runs keeps its plan. Raises DemoError for a port that cannot be had, before anything is started.
    """
    plan, home = supervisor.read_plan(folder(settings)), folder(settings)
    if supervised(settings) and plan and plan.names >= set(only):
        return
    kill(find_supervisor(settings))  # its parts go on: the next one takes over those that its plan has, too
    end_leftovers(settings)
    make_keys(settings.credentials)
    parts = make_plan(settings, only, choose_ports(settings, only), overrides or {})
    settings.logs.mkdir(parents=True, exist_ok=True)
    supervisor.write_plan(home, parts)
    with log_file(settings, supervisor.NAME).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo.supervisor", str(home)],
            cwd=ROOT,
            env={**clean_environment(), MARK_VARIABLE: mark(home, supervisor.NAME)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    wait(settings, "its supervisor", lambda: process.poll() is not None or runs_as(settings, process.pid))
    if process.poll() is not None:
        log = log_file(settings, supervisor.NAME)
        raise DemoError(f"The supervisor ended while starting:\n{tail(log)}\nWhole log: {log}")


def end_leftovers(settings: Settings) -> None:
    """End what parts that have ended left running: it may have their ports."""
    plan, parts = supervisor.read_plan(folder(settings)), states(settings).parts
    for name in {*parts, *(plan.names if plan else ())}:
        state = parts.get(name, PartState())
        if not state.running:
            kill(members(folder(settings), name, state.identity))


def runs_as(settings: Settings, pid: int) -> bool:
    state = states(settings).supervisor
    return state is not None and state.pid == pid


def make_plan(
    settings: Settings, only: Collection[str], ports: Mapping[str, int], overrides: Mapping[str, str]
) -> Plan:
    """The parts in `only`, in order."""
    sagemaker, airflow = (f"http://{HOST}:{ports[name]}" for name in ("sagemaker", "airflow"))
    environment = airflow_environment(settings, ports["airflow"], sagemaker)
    if RECORDED_CALLS in os.environ:
        environment |= recording(Path(os.environ[RECORDED_CALLS]))
    environment |= overrides

    def airflow_part(name: str, command: str, *after: str, ready: str = "", once: bool = False) -> Part:
        words = [str(settings.environments / "airflow" / "bin" / "airflow"), *command.split()]
        return Part(name, words, environment, str(log_file(settings, name)), after, ready, once)

    # Tasks start once the API server, to which they report, and the local SageMaker respond. On one machine
    # nobody reads task logs from a scheduler or triggerer, so these serve none.
    parts = [
        sagemaker_part(settings, ports["sagemaker"]),
        airflow_part("airflow-database", "db migrate", once=True),
        airflow_part(
            "api-server", "api-server", "airflow-database", ready=f"{airflow}/api/v2/monitor/health"
        ),
        airflow_part("dag-processor", "dag-processor", "airflow-database"),
        airflow_part("scheduler", "scheduler --skip-serve-logs", "api-server", SAGEMAKER),
        airflow_part("triggerer", "triggerer --skip-serve-logs", "api-server", SAGEMAKER),
    ]
    return Plan([part for part in parts if part.name in only], dict(ports), str(ROOT))


def sagemaker_part(settings: Settings, port: int) -> Part:
    command = [
        str(settings.environments / "sagemaker" / "bin" / "python"),
        *("-m", "local_sagemaker", "--root", str(settings.sagemaker_root)),
        *("--images", str(ROOT / "local_sagemaker" / "images" / "images.yaml")),
        *("--host", HOST, "--port", str(port)),
        *(["--require-signatures"] if settings.require_signatures else []),
    ]
    environment = {"LOCAL_SAGEMAKER_ENVIRONMENTS": str(settings.environments)}
    log = str(log_file(settings, SAGEMAKER))
    return Part(SAGEMAKER, command, environment, log, ready=f"http://{HOST}:{port}/_local/health")


def wait(settings: Settings, what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{what} was not ready within {START_SECONDS:.0f} s. Logs: {settings.logs}")
        time.sleep(POLL_SECONDS)


def wait_until_ready(settings: Settings, name: str) -> Service:
    """Wait for the service `sagemaker` or `airflow`.

    DemoError with the end of a log where a part ends again and again, or takes too long.
    """
    parts = AIRFLOW if name == "airflow" else (name,)
    before = {part: state.deaths for part, state in states(settings).parts.items()}

    def ready() -> bool:
        now = states(settings).parts
        for part in parts:
            state = now.get(part, PartState())
            if state.status != "ready" and state.deaths >= before.get(part, 0) + DEATHS:
                log = log_file(settings, part)
                raise DemoError(f"{part} ended while starting:\n{tail(log)}\nWhole log: {log}")
        if not supervised(settings):
            raise DemoError(f"The supervisor ended: see {log_file(settings, supervisor.NAME)}")
        up = all(now.get(part, PartState()).up for part in parts)
        found = find(settings, name)
        return up and found is not None and (name != "airflow" or airflow_ready(found.url))

    wait(settings, name, ready)
    found = find(settings, name)
    if found is None:
        raise DemoError(f"{name} has ended again: see {settings.logs}")
    return found


def airflow_ready(url: str) -> bool:
    """Whether the API server responds and the scheduler, DAG processor and triggerer report in."""
    try:
        response = httpx.get(f"{url}/api/v2/monitor/health", timeout=5.0, trust_env=False)
    except httpx.TransportError:
        return False
    parts = ("scheduler", "dag_processor", "triggerer")
    return response.status_code == httpx.codes.OK and all(
        (response.json().get(part) or {}).get("status") == "healthy" for part in parts
    )


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
    """Airflow's settings: for two cores, one DAG and somebody watching.

    What tells that a process was killed is short, so that a run goes on within a minute. What bears a pause
    of the API server, which takes 10 to 20 s to start again, is long, so that no task ends because of it.
    """
    passwords = password_file(settings.airflow_home / "passwords.json")
    url = f"http://{HOST}:{port}"
    manager = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
    return {
        "AIRFLOW_HOME": str(settings.airflow_home),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__AUTH_MANAGER": manager,
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
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "12",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "10",
        "AIRFLOW_CONN_AWS_DEFAULT": aws_connection(sagemaker_url, settings.credentials),
        "PATH": os.pathsep.join(
            [str(settings.environments / "airflow" / "bin"), os.environ.get("PATH", os.defpath)]
        ),
    }


def recording(file: Path) -> dict[str, str]:
    """Variables that make Airflow's processes write the AWS operations that they call to a file."""
    return {RECORDED_CALLS: str(file), "PYTHONPATH": str(ROOT / "demo" / "recorder")}


def stop(settings: Settings) -> list[str]:
    """End all that was started, jobs and model servers too; the names of the parts that ran."""
    home, plan = folder(settings), supervisor.read_plan(folder(settings))
    running = [name for name, state in states(settings).parts.items() if state.running]
    found = find_supervisor(settings)
    send(found, signal.SIGTERM)  # it ends its parts, in three groups
    kill(wait_for_end(found, 6 * STOP_SECONDS))
    leftovers = supervisor.end_parts(home, plan)
    end(jobs(settings.sagemaker_root))
    for path in (supervisor.state_file(home), supervisor.plan_file(home)):
        path.unlink(missing_ok=True)
    return sorted({*running, *leftovers})
