"""Starts the parts of the services in order, and again when they end: `python -m demo.supervisor FOLDER`.

The folder holds the plan, which parts there are, and the state, which process each of them is. Both survive
the supervisor: killed, it leaves its parts running, and the next one takes over those that the plan still
describes. Supervisors known to PyPI neither start in order of readiness nor take over what they find.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from demo.processes import MARK_VARIABLE, Identity, end, kill, mark, members

NAME = "supervisor"
POLL_SECONDS = 0.25
PROBE_SECONDS = 5.0  # that a part may take to respond while it starts
FIRST_DELAY_SECONDS = 0.5  # before a part is started again; doubled each time, until it has stayed up
LONGEST_DELAY_SECONDS = 30.0
STAYED_UP_SECONDS = 60.0
LONGEST_START_SECONDS = 180.0  # after which a part that never responded is killed and started again

logger = logging.getLogger(NAME)


@dataclass(frozen=True)
class Part:
    """One process of the services.

    `after` are the parts that have to be ready before it starts. A part is ready when the URL `ready`
    responds with 200; without one, as soon as it runs; with `once`, when it has ended with exit status 0.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: str
    after: Sequence[str] = ()
    ready: str = ""
    once: bool = False

    @property
    def fingerprint(self) -> str:
        """Tells whether a process was started from this very description."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """The parts, and the ports by service."""

    parts: Sequence[Part]
    ports: Mapping[str, int]
    directory: str

    @property
    def names(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts)


@dataclass
class PartState:
    """What a part does: waits, starts, is ready, is done (`once`), or has ended and will be started again.

    `deaths` counts how often it ended since the first start, `exit` how it last did (-9: killed; None:
    unknown, because an earlier supervisor had started it).
    """

    status: str = "waits"
    identity: Identity | None = None
    fingerprint: str = ""
    deaths: int = 0
    exit: int | None = None

    @property
    def running(self) -> bool:
        return self.identity is not None and self.identity.process() is not None

    @property
    def up(self) -> bool:
        """Whether it does what it is there for."""
        return self.status == "done" or (self.status == "ready" and self.running)


@dataclass
class State:
    """The supervisor and its parts, as last written."""

    supervisor: Identity | None = None
    parts: dict[str, PartState] = field(default_factory=dict)


def plan_file(folder: Path) -> Path:
    return folder / "plan.json"


def state_file(folder: Path) -> Path:
    return folder / "state.json"


def write(path: Path, content: Any) -> None:
    """Replace a file that only its owner can read; it never has a part of its content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_plan(folder: Path, plan: Plan) -> None:
    write(plan_file(folder), asdict(plan))


def read_plan(folder: Path) -> Plan | None:
    try:
        content = json.loads(plan_file(folder).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Plan([Part(**part) for part in content["parts"]], content["ports"], content["directory"])


def read_state(folder: Path) -> State:
    """An empty state where nothing was started."""
    try:
        content = json.loads(state_file(folder).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return State()
    parts = {
        name: PartState(**{**part, "identity": identity(part["identity"])})
        for name, part in content["parts"].items()
    }
    return State(identity(content["supervisor"]), parts)


def identity(content: Mapping[str, Any] | None) -> Identity | None:
    return Identity(**content) if content else None


class AlreadySupervisedError(Exception):
    """Another supervisor has the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Held as long as this process lives; raises AlreadySupervisedError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadySupervisedError(str(folder)) from error
        yield


class Supervisor:
    """Attends to the parts of a plan until it is asked to end."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._ending = threading.Event()
        self._written: Any = None
        self._watches = {part.name: Watch(folder, part, plan.directory) for part in plan.parts}

    def request_end(self) -> None:
        self._ending.set()

    def run(self) -> None:
        """Take over what runs, then attend to the parts; at the end, end them."""
        self._take_over()
        while not self._ending.is_set():
            for watch in self._watches.values():
                watch.attend(self._may_start(watch.part))
                self._save()
            self._ending.wait(POLL_SECONDS)
        end_parts(self._folder, self._plan)

    def _may_start(self, part: Part) -> bool:
        """Whether all that it needs is ready; what is not in this plan is somebody else's."""
        needed = (self._watches[name].state for name in part.after if name in self._watches)
        return not self._ending.is_set() and all(state.status in {"ready", "done"} for state in needed)

    def _take_over(self) -> None:
        """Go on with the parts that an earlier supervisor left as planned; end its other processes."""
        earlier = read_state(self._folder).parts
        for name, state in earlier.items():
            watch = self._watches.get(name)
            if watch and state.fingerprint == watch.part.fingerprint and state.running:
                watch.take_over(state)
            elif state.running:
                end_part(self._folder, name, state.identity)
            else:
                kill(members(self._folder, name, state.identity))
        for name, watch in self._watches.items():
            if name not in earlier:  # one that was killed between a start and its record
                kill(members(self._folder, name, None))
            if watch.part.once and name in earlier and earlier[name].status == "done":
                watch.take_over_result(earlier[name], self._watches.values())

    def _save(self) -> None:
        state = State(Identity.of(os.getpid()), {name: watch.state for name, watch in self._watches.items()})
        content = asdict(state)
        if content == self._written:
            return
        try:
            write(state_file(self._folder), content)
        except OSError as error:  # a full disk; the mark still tells whose a process is
            logger.warning("cannot write the state: %s", error)
        else:
            self._written = content


class Watch:
    """One part: its process, and when it may start again."""

    def __init__(self, folder: Path, part: Part, directory: str) -> None:
        self.part = part
        self.state = PartState(fingerprint=part.fingerprint)
        self._folder = folder
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._next_start = 0.0
        self._delay = FIRST_DELAY_SECONDS

    def take_over(self, state: PartState) -> None:
        logger.info("%s: taken over, process %s", self.part.name, state.identity)
        self.state = state
        self.state.status = "starts"  # until it has been asked
        self._started = time.monotonic()

    def take_over_result(self, state: PartState, watches: Iterable[Watch]) -> None:
        """What ran once need not run again where a part that needs it still runs."""
        if any(watch.state.running and self.part.name in watch.part.after for watch in watches):
            self.state = state

    def attend(self, may_start: bool) -> None:
        if self.state.status in {"starts", "ready"}:
            if not self._running():
                self._ended()
            elif self.state.status == "starts":
                self._probe()
                if self._hangs():
                    logger.warning("%s: did not respond for %.0f s", self.part.name, self._elapsed())
                    kill(members(self._folder, self.part.name, self.state.identity))
            elif self._elapsed() > STAYED_UP_SECONDS:
                self._delay = FIRST_DELAY_SECONDS
        elif self.state.status != "done" and may_start and time.monotonic() >= self._next_start:
            self._start()

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _hangs(self) -> bool:
        late = self._elapsed() > LONGEST_START_SECONDS
        return late and self.state.status == "starts" and not self.part.once

    def _running(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        return self.state.running

    def _start(self) -> None:
        try:
            with Path(self.part.log).open("ab") as output:
                self._child = subprocess.Popen(
                    list(self.part.command),
                    cwd=self._directory,
                    env={
                        **os.environ,
                        **self.part.environment,
                        MARK_VARIABLE: mark(self._folder, self.part.name),
                        "SPT_NOENV": "1",  # setproctitle would overwrite the environment that others can read
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                )
        except OSError as error:  # no space, no memory, no such program
            logger.warning("%s: cannot start: %s", self.part.name, error)
            self._plan_restart()
            return
        self.state.identity = Identity.of(self._child.pid)
        self.state.status = "starts"
        self._started = time.monotonic()
        logger.info("%s: started, process %d", self.part.name, self._child.pid)
        self._probe()

    def _probe(self) -> None:
        if self.part.once:
            return
        if not self.part.ready or responds(self.part.ready):
            logger.info("%s: ready after %.1f s", self.part.name, self._elapsed())
            self.state.status = "ready"

    def _ended(self) -> None:
        self.state.exit = self._child.returncode if self._child else None
        if self.part.once and self.state.exit == 0:
            self.state.status = "done"
            return
        logger.warning("%s: ended with %s", self.part.name, self.state.exit)
        # Its children would go on without it. Killed, not asked: a task's end would stop its job.
        kill(members(self._folder, self.part.name, self.state.identity))
        self._plan_restart()

    def _plan_restart(self) -> None:
        self.state.status = "ended"
        self.state.deaths += 1
        self._child = None
        self._next_start = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)


def responds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=PROBE_SECONDS, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def end_part(folder: Path, name: str, leader: Identity | None) -> bool:
    """End a part's first process, then what is left of it; False where nothing was running."""
    return bool(end_group(folder, {name: leader}))


def end_group(folder: Path, leaders: Mapping[str, Identity | None]) -> list[str]:
    """End several parts at once; the names of those of which anything ran."""
    found = {name: members(folder, name, leader) for name, leader in leaders.items()}
    end([process for leader in leaders.values() if leader and (process := leader.process())])
    end([process for processes in found.values() for process in processes])
    for name, leader in leaders.items():
        kill(members(folder, name, leader))  # what was started meanwhile
    return [name for name, processes in found.items() if processes]


def end_parts(folder: Path, plan: Plan | None) -> list[str]:
    """End all parts, each before those it needs; the names of those of which anything ran."""
    state = read_state(folder)
    needed = {part.name: set(part.after) for part in plan.parts} if plan else {}
    left = set(state.parts) | set(needed)
    ended = []
    while left:
        group = left - set().union(*(needed.get(name, set()) for name in left))
        leaders = {name: state.parts[name].identity if name in state.parts else None for name in group}
        ended += end_group(folder, leaders)
        left -= group
    return sorted(ended)


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    folder = Path(arguments[0])
    plan = read_plan(folder)
    if plan is None:
        logger.error("there is no plan in %s", folder)
        return 1
    with suppress(AlreadySupervisedError), locked(folder):
        supervisor = Supervisor(folder, plan)

        def request_end(_signal: int, _frame: FrameType | None) -> None:
            supervisor.request_end()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, request_end)
        supervisor.run()
        return 0
    logger.error("another supervisor attends to %s", folder)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
