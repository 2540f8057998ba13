"""Processes that this project started: recognised by start time, session and a mark, and ended by their id.

A process id that the system has given to somebody else since is never signalled.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK_VARIABLE = "RETRAINING_DEMO_PART"  # in the environment of a part and of all that it starts
JOB_VARIABLE = "LOCAL_SAGEMAKER_PROCESS"  # in the environment of everything that the local SageMaker runs
STOP_SECONDS = 10.0  # idle services take 5; a scheduler whose task is running waits for it without end
POLL_SECONDS = 0.1
SAME_START_SECONDS = 1.0  # start times are computed from clock ticks and the time of boot


@dataclass(frozen=True)
class Identity:
    """A process by its id and its start time, in seconds since the epoch, as psutil gives it."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The process, or None where it has ended or its id belongs to another one now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return None
        return process if same and alive(process) else None


def alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and that nobody has waited for yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def selected(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The living processes of this user that match; those that end meanwhile or cannot be read do not."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and matches(process) and alive(process):
                found.append(process)
    return found


def mark(folder: Path, part: str) -> str:
    """The value of `MARK_VARIABLE` for a part of the services that `folder` keeps."""
    return str(folder.resolve() / part)


def members(folder: Path, part: str, leader: Identity | None) -> list[psutil.Process]:
    """A part's processes: those with its mark, and those in the session of its recorded first process.

    The jobs of the local SageMaker, which outlive it, are not among them.
    """
    own = mark(folder, part)

    def matches(process: psutil.Process) -> bool:
        environment = process.environ()
        if JOB_VARIABLE in environment:
            return False
        return environment.get(MARK_VARIABLE) == own or in_session(process, leader)

    return selected(matches)


def in_session(process: psutil.Process, leader: Identity | None) -> bool:
    """Whether it is in the session that `leader` began; a stranger who has its id now began another."""
    if leader is None or os.getsid(process.pid) != leader.pid:
        return False
    if process.create_time() < leader.created - SAME_START_SECONDS:
        return False
    return leader.process() is not None or not psutil.pid_exists(leader.pid)


def jobs(root: Path) -> list[psutil.Process]:
    """The local SageMaker's jobs and model servers: marked by their folder below its `root`."""
    below = f"{root.resolve()}{os.sep}"
    return selected(lambda process: process.environ().get(JOB_VARIABLE, "").startswith(below))


def end(processes: Collection[psutil.Process], seconds: float = STOP_SECONDS) -> None:
    """Ask the processes to end, and kill those that do not within `seconds`."""
    send(processes, signal.SIGTERM)
    kill(wait_for_end(processes, seconds))


def kill(processes: Collection[psutil.Process]) -> None:
    send(processes, signal.SIGKILL)
    wait_for_end(processes, STOP_SECONDS)


def send(processes: Collection[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)  # which first compares start times


def wait_for_end(processes: Collection[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after `seconds`."""
    deadline = time.monotonic() + seconds
    while (running := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return running
