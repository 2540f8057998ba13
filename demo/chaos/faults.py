"""The faults: processes killed, the network disturbed, the disk full; and the moments at which they come."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from demo import services
from demo.chaos import network
from demo.processes import alive
from demo.settings import DemoError, Settings

LONGEST_SECONDS = 60.0
SHORTEST_SECONDS = 5.0
DISK_BYTES = 2 << 30  # of the disk that fills; one run needs less than 100 MB
BUSY_SECONDS = 120.0  # to wait for a task's process
POLL_SECONDS = 0.05

PROCESSES = ("scheduler", "triggerer", "api-server", "dag-processor", services.SAGEMAKER, "worker", "task")
DISK = "full disk"


@dataclass(frozen=True)
class Fault:
    """What goes wrong and when: `after` seconds into `task`, or at its end; for `seconds`, 0 for a kill."""

    target: str
    task: str
    after: float
    seconds: float = 0.0

    def __str__(self) -> str:
        what = f"SIGKILL of {self.target}" if self.target in PROCESSES else self.target
        lasting = f" for {self.seconds:.0f} s" if self.seconds else ""
        where = "network " if self.target in network.MODES else ""
        return f"{where}{what}{lasting}, {self.after:.1f} s into {self.task}"


def draw(random: random.Random, lengths: Mapping[str, float], targets: list[str]) -> Iterator[Fault]:
    """Faults without end: every target once in each round, at a random moment of a random task.

    `lengths` are the tasks' seconds in a run without a fault.
    """
    while True:
        for target in random.sample(targets, len(targets)):
            task = random.choice(sorted(lengths))
            after = random.uniform(0.0, lengths[task])
            lasting = 0.0 if target in PROCESSES else random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
            yield Fault(target, task, round(after, 1), round(lasting))


class Faults:
    """Brings faults about. `disk` is the folder that can be filled, None where there is none."""

    def __init__(self, settings: Settings, connection: network.Network, disk: Path | None) -> None:
        self._settings = settings
        self._network = connection
        self._disk = disk

    @property
    def targets(self) -> list[str]:
        return [*PROCESSES, *network.MODES, *([DISK] if self._disk else [])]

    def cause(self, fault: Fault) -> Callable[[], None]:
        """Bring it about; the function returned waits until it is over."""
        if fault.target in PROCESSES:
            self._process(fault.target).kill()
            return lambda: None
        if fault.target == DISK and self._disk is not None:
            thread = threading.Thread(target=fill, args=(self._disk, fault.seconds))
            thread.start()
            return thread.join
        self._network.disturb(fault.target, fault.seconds)
        return self._network.wait

    def _process(self, name: str) -> psutil.Process:
        deadline = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < deadline:
            found = self._busy(name) if name in {"worker", "task"} else self._leader(name)
            if found is not None and alive(found):
                return found
            time.sleep(POLL_SECONDS)
        raise DemoError(f"No process of {name} was found within {BUSY_SECONDS:.0f} s")

    def _leader(self, part: str) -> psutil.Process | None:
        state = services.states(self._settings).parts.get(part)
        return state.identity.process() if state and state.identity else None

    def _busy(self, kind: str) -> psutil.Process | None:
        """A worker that runs a task, or the task's own process.

        An idle worker is left alone: it may hold the lock of the executor's queue, which nobody can regain.
        """
        scheduler = self._leader("scheduler")
        try:
            for worker in scheduler.children() if scheduler else []:
                for task in worker.children():
                    return worker if kind == "worker" else task
        except psutil.NoSuchProcess:
            pass
        return None


def fill(folder: Path, seconds: float) -> None:
    """Leave no space on a folder's disk for some seconds."""
    ballast = folder / ".ballast"
    deadline = time.monotonic() + seconds
    try:
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < deadline:
                take_all(file.fileno())
                time.sleep(POLL_SECONDS)
    finally:
        ballast.unlink(missing_ok=True)


def take_all(file: int) -> None:
    """Lengthen the file by as much as the disk has, again when something was deleted meanwhile."""
    free = os.fstatvfs(file)
    if size := free.f_bavail * free.f_bsize:
        try:
            os.posix_fallocate(file, os.fstat(file).st_size, size)
        except OSError:  # somebody else was quicker
            return


@contextmanager
def small_disk(folder: Path, size: int = DISK_BYTES) -> Iterator[Path | None]:
    """A file system of `size` bytes in memory at `folder`; None where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    unmount(folder)
    options = f"size={size},mode=700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)], capture_output=True, check=False
    )
    try:
        yield folder if done.returncode == 0 else None
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
