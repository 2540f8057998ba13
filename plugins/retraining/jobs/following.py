"""Following something in SageMaker to its end: each poll's news become lines of the task's log.

A follower works on a worker (`follow`) and in the triggerer (`retraining.operators.trigger`). Its position,
which is JSON, says what has been shown, so that another process can go on from there.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, TypedDict

from retraining.aws.clients import Aws
from retraining.aws.responses import is_missing
from retraining.errors import NoAnswerError

LOST_SECONDS = 900.0
"""How long SageMaker may leave polls unanswered, beyond the clients' own retries, before a task gives up."""


@dataclass(frozen=True)
class Line:
    """A line for the task's log, with its `logging` level."""

    text: str
    level: int = logging.INFO


class Event(TypedDict, total=False):
    """How following ended: with an outcome, at the deadline, or without an answer (`error` says why)."""

    outcome: dict[str, Any]
    timed_out: bool
    error: str


class Follower(ABC):
    """Polls one thing. `ended` says that nothing more is to come.

    `arguments` are JSON and enough to make an equal follower.
    """

    clients: ClassVar[tuple[str, ...]] = ("sagemaker",)
    """Attributes of `Aws` that polls use. They are made before the first poll, which runs in a thread that
    cannot read Airflow's connections."""

    def __init__(self, aws: Aws, arguments: Mapping[str, Any], position: Mapping[str, Any] | None = None):
        self.aws = aws
        self.arguments = dict(arguments)
        self.position: dict[str, Any] = dict(position or {})
        self.ended = False
        self._started = time.monotonic()
        self._lost_since: float | None = None

    @property
    @abstractmethod
    def subject(self) -> str:
        """What is followed, in words."""

    @abstractmethod
    def news(self) -> Iterator[Line]:
        """What is new since `position`, which every line moves on; sets `ended`."""

    @abstractmethod
    def pause(self, passed: float) -> float:
        """Seconds to the next poll, `passed` seconds after the first one."""

    def outcome(self) -> dict[str, Any]:
        """What the task is told when this has ended."""
        return {}

    def stop(self) -> None:  # noqa: B027  most things need no stop
        """Stop what is followed, if it can be stopped."""

    def connect(self) -> None:
        """Make the clients."""
        for name in self.clients:
            getattr(self.aws, name)

    def poll(self) -> list[Line]:
        """The lines of one poll; a warning where SageMaker gives no answer.

        Raises ClientError where the subject does not exist, and NoAnswerError after LOST_SECONDS without an
        answer.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        lines: list[Line] = []
        try:
            for line in self.news():
                lines.append(line)  # noqa: PERF402  what came before an error is shown, too
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and is_missing(error):
                raise
            lines.extend(self._unanswered(error))
            return lines
        if self._lost_since is not None:
            lines.insert(0, Line(f"There is news of {self.subject} again."))
            self._lost_since = None
        return lines

    def seconds_to_next(self) -> float:
        """Seconds to the next poll."""
        return self.pause(time.monotonic() - self._started)

    def _unanswered(self, error: Exception) -> Iterator[Line]:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
            yield Line(f"No news of {self.subject}: {error}. Asking again.", logging.WARNING)
        if now - self._lost_since > LOST_SECONDS:
            raise NoAnswerError(
                f"There has been no news of {self.subject} for {LOST_SECONDS / 60:.0f} minutes: {error}. "
                "It was left as it is, and another attempt of this task goes on from there."
            ) from error


def follow(follower: Follower, deadline: datetime, emit: Callable[[int, str], object]) -> Event:
    """Poll until the follower has ended or the deadline has passed; `emit` takes level and text of a line.

    Raises what `Follower.poll` raises.
    """
    while True:
        for line in follower.poll():
            emit(line.level, line.text)
        if follower.ended:
            return {"outcome": follower.outcome()}
        if datetime.now(UTC) >= deadline:
            return {"timed_out": True}
        time.sleep(follower.seconds_to_next())
