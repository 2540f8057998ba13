"""Processes that outlive the runtime: started detached, found after a restart, stopped with a grace period.

Every process belongs to a folder. The shim (`shim.py`) that runs the command writes its process id there and,
at the end, the exit code, so that a restarted runtime needs nothing but the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from local_sagemaker import shim

FOLDER_VARIABLE = "LOCAL_SAGEMAKER_PROCESS"  # set in every process of a group, to find them without the shim
LOST = -1  # in place of the exit code of a process whose shim was killed, or that went down with the machine

_START_SECONDS = 30.0
_POLL_SECONDS = 0.02


class ProcessStartError(Exception):
    """The shim did not start; the message names the log that says why."""


@dataclass(frozen=True)
class ProcessGroup:
    """A command and everything that it started. `pid` is the shim's, `group` the command's process group."""

    folder: Path
    pid: int
    group: int

    def exit_code(self) -> int | None:
        """None while it runs; 128 + n where signal n ended it; LOST if it ended without an exit code."""
        if (code := _read_exit_code(self.folder)) is not None:
            return code
        if _is_shim(self.pid, self.folder):
            return None
        code = _read_exit_code(self.folder)  # it may have ended in between
        return LOST if code is None else code

    def running(self) -> bool:
        return self.exit_code() is None

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        with contextlib.suppress(psutil.Error):
            psutil.Process(self.group).terminate()

    def kill(self) -> None:
        """Send SIGKILL to the group, or to what is left of it where the shim has ended."""
        if _is_shim(self.pid, self.folder):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)
        else:
            for process in _marked_processes(self.folder):
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None when it still runs after `seconds`."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return code

    def stop(self, grace: float) -> int:
        """SIGTERM, up to `grace` seconds to end, then SIGKILL. Returns the exit code."""
        self.terminate()
        if (code := self.wait(grace)) is None:
            self.kill()
            code = self.wait(_START_SECONDS)
        return LOST if code is None else code


def start(
    folder: Path, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path
) -> ProcessGroup:
    """Start `command` detached from this process, stdout and stderr appended to `log`.

    A folder belongs to one process for ever: starting it again returns the first. Raises ProcessStartError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", shim.__file__, str(folder), *command],
            cwd=cwd,
            env={**environment, FOLDER_VARIABLE: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(popen)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (group := find(folder)) is not None:
            return group
        if popen.poll() is not None and not (folder / shim.PROCESS_FILE).exists():
            break
        time.sleep(_POLL_SECONDS)
    raise ProcessStartError(f"{command[0]} did not start in {_START_SECONDS:.0f} s; see {log}")


def find(folder: Path) -> ProcessGroup | None:
    """The process started for `folder` by this or an earlier runtime; None if there was none."""
    reap()
    try:
        content = json.loads((folder / shim.PROCESS_FILE).read_text())
    except FileNotFoundError:
        return None
    return ProcessGroup(folder, content["pid"], content["group"])


_children: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Wait for the shims that have ended, so that they do not remain as zombies."""
    for child in list(_children):
        if child.poll() is not None:
            with contextlib.suppress(ValueError):
                _children.remove(child)


def _read_exit_code(folder: Path) -> int | None:
    try:
        return int((folder / shim.EXIT_FILE).read_text())
    except FileNotFoundError:
        return None


def _is_shim(pid: int, folder: Path) -> bool:
    """Whether `pid` is still this folder's shim, whose command line names the folder."""
    try:
        process = psutil.Process(pid)
        return str(folder) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _marked_processes(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(FOLDER_VARIABLE) == str(folder):
                found.append(process)
    return found
