"""Processes that outlive the runtime: exit codes, signals, and being found again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from local_sagemaker.processes import LOST, ProcessGroup

from local_sagemaker import processes

READY = "print('ready', flush=True)\n"
Starter = Callable[[str], ProcessGroup]


@pytest.fixture
def start_script(tmp_path: Path) -> Iterator[Starter]:
    """Starts a Python script in a fresh folder; whatever still runs at the end is killed."""
    started: list[ProcessGroup] = []

    def start(script: str) -> ProcessGroup:
        group = processes.start(
            tmp_path / f"process-{len(started)}",
            [sys.executable, "-c", script],
            environment=dict(os.environ),
            cwd=tmp_path,
            log=tmp_path / "log",
        )
        started.append(group)
        return group

    yield start
    for group in started:
        group.kill()
        group.wait(10)


def wait_for_text(path: Path, text: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, f"{text!r} did not appear in {path}"
        time.sleep(0.02)


def test_leaves_exit_code_and_output(start_script: Starter, tmp_path: Path) -> None:
    group = start_script("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert group.wait(20) == 3
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_is_found_again_by_its_folder_alone(start_script: Starter, tmp_path: Path) -> None:
    group = start_script(READY + "import time; time.sleep(60)")
    again = processes.find(group.folder)
    assert again == group
    assert again is not None
    assert again.running()


def test_starting_a_folder_twice_runs_the_command_once(start_script: Starter, tmp_path: Path) -> None:
    group = start_script(READY + "import time; time.sleep(60)")
    again = processes.start(
        group.folder,
        [sys.executable, "-c", READY],
        environment=dict(os.environ),
        cwd=tmp_path,
        log=tmp_path / "log",
    )
    assert again == group
    wait_for_text(tmp_path / "log", "ready")
    assert (tmp_path / "log").read_text().count("ready") == 1


def test_a_command_that_does_not_exist_ends_with_127(tmp_path: Path) -> None:
    group = processes.start(
        tmp_path / "p", ["/no/such/command"], environment={}, cwd=tmp_path, log=tmp_path / "log"
    )
    assert group.wait(20) == 127
    assert "/no/such/command" in (tmp_path / "log").read_text()


def test_terminate_lets_the_command_end_by_itself(start_script: Starter, tmp_path: Path) -> None:
    script = "import signal, sys, time; signal.signal(15, lambda *a: sys.exit(7));" + READY + "time.sleep(60)"
    group = start_script(script)
    wait_for_text(tmp_path / "log", "ready")
    assert group.stop(grace=20) == 7


def test_stop_kills_what_does_not_end_in_time(start_script: Starter, tmp_path: Path) -> None:
    group = start_script("import signal, time; signal.signal(15, signal.SIG_IGN);" + READY + "time.sleep(60)")
    wait_for_text(tmp_path / "log", "ready")
    assert group.stop(grace=0.2) == 128 + signal.SIGKILL


def test_processes_that_a_command_leaves_running_are_killed(start_script: Starter, tmp_path: Path) -> None:
    group = start_script(
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('child', child.pid, 'started', flush=True)"
    )
    assert group.wait(20) == 0
    child = int((tmp_path / "log").read_text().split()[1])
    wait_until_gone(child)


def test_a_process_without_its_shim_is_lost_and_can_be_killed(start_script: Starter, tmp_path: Path) -> None:
    group = start_script(READY + "import time; time.sleep(60)")
    wait_for_text(tmp_path / "log", "ready")
    os.kill(group.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while group.running():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert group.exit_code() == LOST
    group.kill()
    wait_until_gone(group.group)


def test_another_process_with_the_same_id_is_not_mistaken_for_it(tmp_path: Path) -> None:
    (tmp_path / "process.json").write_text(f'{{"pid": {os.getpid()}, "group": {os.getpid()}}}')
    group = processes.find(tmp_path)
    assert group is not None
    assert group.exit_code() == LOST


def test_no_process_where_none_was_started(tmp_path: Path) -> None:
    assert processes.find(tmp_path) is None


def wait_until_gone(pid: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} still runs"
            time.sleep(0.02)
