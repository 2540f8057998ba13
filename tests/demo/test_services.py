"""The services' supervisor: order, restarts, and what `up` and `down` find after any kill.

The parts are small programs here; tests/end_to_end kills the real ones.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from demo import processes, services, supervisor
from demo.processes import Identity
from demo.settings import DemoError, Settings
from demo.supervisor import Part, PartState, Plan, State

CHILD = "import time; time.sleep(600)"
# Serves its port, has a child that would go on without it, and notes when it started.
SERVER = f"""
import http.server, pathlib, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass
port, name, notes = sys.argv[1:]
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
with open(notes, "a") as file:
    file.write(name + "\\n")
http.server.HTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""
PARTS = ("sagemaker", "airflow-database", "api-server", "scheduler")
ALL = 1 + 2 * 3  # the supervisor, and three parts with a child each


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def sleeper(environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env={**os.environ, **(environment or {})}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def toy_plan(settings: Settings, ports: Mapping[str, int]) -> Plan:
    notes = str(settings.local / "notes")
    healthy = {name: f"http://127.0.0.1:{port}/" for name, port in ports.items()}

    def part(name: str, code: str, *after: str, port: int = 0, ready: str = "", once: bool = False) -> Part:
        command = (sys.executable, "-c", code, str(port), name, notes)
        return Part(name, command, {}, str(services.log_file(settings, name)), after, ready, once)

    once = "import sys; open(sys.argv[3], 'a').write('airflow-database\\n')"
    return Plan(
        [
            part("scheduler", SERVER, "api-server", "sagemaker"),
            part("api-server", SERVER, "airflow-database", port=ports["airflow"], ready=healthy["airflow"]),
            part("airflow-database", once, once=True),
            part("sagemaker", SERVER, port=ports["sagemaker"], ready=healthy["sagemaker"]),
        ],
        ports,
        str(settings.local),
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a folder in which `services.start` starts small programs."""
    settings = Settings(tmp_path, airflow_port=0, sagemaker_port=0)
    monkeypatch.setattr(services, "make_plan", lambda given, _only, ports, _overrides: toy_plan(given, ports))
    yield settings
    services.stop(settings)


def up(settings: Settings) -> None:
    services.start(settings, PARTS)
    eventually(lambda: all_up(settings) and len(everything(settings)) >= ALL)


def all_up(settings: Settings) -> bool:
    state = services.states(settings)
    return services.supervised(settings) and all(
        name in state.parts and state.parts[name].up for name in PARTS
    )


def everything(settings: Settings) -> list[psutil.Process]:
    """All that was started here, by its mark, the supervisor too."""
    home = str(services.folder(settings).resolve())
    return processes.selected(
        lambda process: (
            process.environ().get(processes.MARK_VARIABLE, "").startswith(home) or home in process.cmdline()
        )
    )


def first_processes(settings: Settings) -> dict[str, psutil.Process]:
    state = services.states(settings)
    found = {name: part.identity.process() for name, part in state.parts.items() if part.identity}
    found["supervisor"] = state.supervisor.process() if state.supervisor else None
    return {name: process for name, process in found.items() if process}


def kill(process: psutil.Process) -> None:
    process.kill()
    eventually(lambda: not processes.alive(process))


def test_parts_start_when_what_they_need_is_ready(settings: Settings) -> None:
    up(settings)
    eventually(lambda: len((settings.local / "notes").read_text().split()) == len(PARTS))
    started = (settings.local / "notes").read_text().split()
    assert started.index("airflow-database") < started.index("api-server") < started.index("scheduler")
    assert started.index("sagemaker") < started.index("scheduler")


def test_down_leaves_nothing_and_up_twice_starts_once(settings: Settings) -> None:
    up(settings)
    before = first_processes(settings)
    up(settings)
    assert first_processes(settings) == before
    for file in services.folder(settings).glob("*.json"):
        assert file.stat().st_mode & 0o077 == 0
    eventually(lambda: len(everything(settings)) == ALL)
    assert set(services.stop(settings)) == {"api-server", "sagemaker", "scheduler"}
    assert everything(settings) == []
    assert services.stop(settings) == []


def test_a_part_that_is_killed_is_started_again_without_its_old_children(settings: Settings) -> None:
    up(settings)
    for name in ("sagemaker", "api-server", "scheduler"):
        before, children = first_processes(settings), set(everything(settings))
        kill(before[name])
        restarted = partial(was_restarted, settings, name)
        eventually(restarted)
        after = first_processes(settings)
        assert {part for part in after if after[part] != before[part]} == {name}
        assert services.states(settings).parts[name].exit == -signal.SIGKILL
        eventually(lambda known=children: len(set(everything(settings)) - known) == 2)  # type: ignore[misc]
        assert len(everything(settings)) == ALL


def was_restarted(settings: Settings, name: str) -> bool:
    return services.states(settings).parts[name].deaths == 1 and all_up(settings)


def test_up_after_the_supervisor_and_parts_were_killed_takes_over_what_lives(settings: Settings) -> None:
    up(settings)
    plan = supervisor.read_plan(services.folder(settings))
    for survivors in ({"sagemaker", "api-server", "scheduler"}, {"scheduler"}, set[str]()):
        before = first_processes(settings)
        for name in ["supervisor", *sorted(set(before) - survivors - {"supervisor"})]:
            kill(before[name])
        up(settings)
        after = first_processes(settings)
        assert {name for name in after if after[name] == before[name]} == survivors
        eventually(lambda: len(everything(settings)) == ALL)
    assert supervisor.read_plan(services.folder(settings)) == plan  # free ports stay


def test_a_child_alone_is_ended_by_down(settings: Settings) -> None:
    up(settings)
    parts = first_processes(settings)
    [child] = parts["scheduler"].children()
    for process in [parts["supervisor"], *everything(settings)]:
        if process != child:
            kill(process)
    assert services.stop(settings) == ["scheduler"]
    assert not processes.alive(child)


def test_a_process_whose_start_was_not_recorded_is_found_by_its_mark(settings: Settings) -> None:
    up(settings)
    supervisor.state_file(services.folder(settings)).unlink()
    own = processes.mark(services.folder(settings), "supervisor")
    leader = [p for p in everything(settings) if p.environ()[processes.MARK_VARIABLE] == own]
    survivors = [process for process in everything(settings) if process not in leader]
    kill(leader[0])
    up(settings)
    assert not any(processes.alive(process) for process in survivors)


def test_without_a_record_a_full_disk_prevented_all_is_attended_to_and_found(settings: Settings) -> None:
    """The state cannot be written: parts are started again all the same, and `down` finds them."""
    up(settings)
    home = services.folder(settings)
    state = supervisor.state_file(home)
    state.unlink()
    state.mkdir()  # a rename onto a folder fails, as a write to a full disk does
    [scheduler] = [p for p in everything(settings) if p.cmdline()[-2:-1] == ["scheduler"]]
    kill(scheduler)
    eventually(lambda: (settings.local / "notes").read_text().split().count("scheduler") == 2)
    state.rmdir()
    services.stop(settings)
    assert everything(settings) == []


def test_a_second_supervisor_gives_way(settings: Settings) -> None:
    up(settings)
    before = first_processes(settings)
    second = subprocess.run(
        [sys.executable, "-m", "demo.supervisor", str(services.folder(settings))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert "another supervisor" in second.stderr
    assert first_processes(settings) == before


def test_parts_that_another_plan_describes_are_started_afresh(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(settings)
    before = first_processes(settings)

    def changed(given: Settings, _only: object, ports: Mapping[str, int], _overrides: object) -> Plan:
        plan = toy_plan(given, ports)
        parts = [
            replace(part, environment={"NEW": "1"}) if part.name == "scheduler" else part
            for part in plan.parts
        ]
        return replace(plan, parts=parts)

    monkeypatch.setattr(services, "make_plan", changed)
    kill(before["supervisor"])
    up(settings)
    after = first_processes(settings)
    assert {name for name in after if after[name] != before[name]} == {"supervisor", "scheduler"}
    assert not processes.alive(before["scheduler"])


def test_a_part_that_ends_while_starting_is_reported_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(given: Settings, _only: object, ports: Mapping[str, int], _overrides: object) -> Plan:
        [*_, sagemaker] = toy_plan(given, ports).parts
        command = [sys.executable, "-c", "raise SystemExit('no database')"]
        return Plan([replace(sagemaker, command=command)], ports, str(given.local))

    monkeypatch.setattr(services, "make_plan", failing)
    services.start(settings, {"sagemaker"})
    with pytest.raises(DemoError, match=r"sagemaker ended while starting:\nno database"):
        services.wait_until_ready(settings, "sagemaker")


def test_a_part_that_never_responds_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_START_SECONDS", 0.2)
    url = f"http://127.0.0.1:{services.free_port()}/"
    part = Part("api-server", [sys.executable, "-c", CHILD], {}, str(tmp_path / "log"), ready=url)
    watch = supervisor.Watch(tmp_path, part, str(tmp_path))

    def started_again() -> bool:
        watch.attend(may_start=True)
        return watch.state.deaths == 1 and watch.state.running

    eventually(started_again)
    assert supervisor.end_part(tmp_path, "api-server", watch.state.identity)


def test_a_port_in_use_is_named_with_the_variable_to_change(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=rf"Port {port} .* choose another port with AIRFLOW_PORT="):
            services.start(replace(settings, airflow_port=port))
    assert everything(settings) == []


def test_a_process_that_took_over_the_id_is_left_alone(settings: Settings) -> None:
    with sleeper() as stranger:
        created = psutil.Process(stranger.pid).create_time()
        stale = PartState("ready", Identity(stranger.pid, created - 3600))
        state = State(Identity(stranger.pid, created - 3600), {"scheduler": stale})
        content = {
            "supervisor": state.supervisor.__dict__,
            "parts": {"scheduler": {**stale.__dict__, "identity": state.supervisor.__dict__}},
        }
        supervisor.write(supervisor.state_file(services.folder(settings)), content)

        assert not services.supervised(settings)
        assert services.stop(settings) == []
        assert stranger.poll() is None
        assert Identity(stranger.pid, created).process() is not None


def test_jobs_below_the_own_root_are_ended_and_others_are_not(settings: Settings, tmp_path: Path) -> None:
    own = {processes.JOB_VARIABLE: str(settings.sagemaker_root / "training-job" / "a")}
    foreign = {processes.JOB_VARIABLE: str(tmp_path / "sagemaker-of-somebody-else" / "a")}
    with sleeper(own) as job, sleeper(foreign) as other:
        eventually(lambda: len(processes.jobs(settings.sagemaker_root)) == 1)
        services.stop(settings)
        assert not processes.alive(psutil.Process(job.pid))
        assert other.poll() is None


def test_a_job_goes_on_while_the_local_sagemaker_is_started_again(settings: Settings) -> None:
    """A job inherits nothing but its own mark; with the part's mark, too, it is still no part of it."""
    up(settings)
    home = services.folder(settings)
    marks = {
        processes.MARK_VARIABLE: processes.mark(home, "sagemaker"),
        processes.JOB_VARIABLE: str(settings.sagemaker_root / "training-job" / "a"),
    }
    with sleeper(marks) as job:
        kill(first_processes(settings)["sagemaker"])
        eventually(lambda: services.states(settings).parts["sagemaker"].deaths == 1 and all_up(settings))
        assert job.poll() is None


def test_the_password_is_made_once_and_only_the_owner_can_read_it(settings: Settings) -> None:
    first = services.password(settings)
    assert services.password(settings) == first
    assert (settings.airflow_home / "passwords.json").stat().st_mode & 0o077 == 0


def test_the_connection_has_the_keys_of_the_local_sagemaker(settings: Settings) -> None:
    without = json.loads(services.aws_connection("http://here", settings.credentials))
    assert (without["login"], without["password"]) == ("anyone", "not-a-secret")
    settings.credentials.parent.mkdir(parents=True)
    settings.credentials.write_text('{"AccessKeyId": "LOCAL1", "SecretAccessKey": "mine"}')
    made = json.loads(services.aws_connection("http://here", settings.credentials))
    assert (made["login"], made["password"], made["extra"]["endpoint_url"]) == (
        "LOCAL1",
        "mine",
        "http://here",
    )


def test_the_services_do_not_inherit_the_callers_aws_and_airflow_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    kept = services.clean_environment()
    assert not {"AWS_PROFILE", "AIRFLOW__CORE__EXECUTOR"} & kept.keys()
