"""The trigger of every deferred task: follows something in SageMaker from the triggerer.

It shows what is new in the task's log, and keeps its position in an XCom, from which the triggerer that takes
over goes on. An abandoned job is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async
from botocore.exceptions import ClientError

from retraining.aws.clients import Aws
from retraining.deployment.endpoint import AlarmsFollower, EndpointFollower
from retraining.errors import NoAnswerError
from retraining.jobs.followers import ProcessingFollower, RulesFollower, TrainingFollower, TuningFollower
from retraining.jobs.following import Event, Follower

POSITION = "followed"
"""Key of the XCom with a position and what it belongs to."""
FOLLOWERS: Mapping[str, type[Follower]] = {
    one.__name__: one
    for one in (
        AlarmsFollower,
        EndpointFollower,
        ProcessingFollower,
        RulesFollower,
        TrainingFollower,
        TuningFollower,
    )
}
_QUESTIONS, _QUESTION_SECONDS = 5, 2.0  # to Airflow about the task's state
_DEFERRED = "deferred"

_unfinished: set[asyncio.Task[None]] = set()  # the event loop itself does not keep its tasks


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work's end, however often the waiting is cancelled; the work goes on in any case."""
    task = asyncio.create_task(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)


class FollowTrigger(BaseTrigger):
    """Ends with a `Resumption`: the follower's outcome, at `deadline` (ISO 8601), or without an answer.

    `follower` names one of FOLLOWERS, `position` is where it begins, `connection` an Airflow connection. With
    `stops`, a task that is killed, cleared, marked or deleted stops what is followed. `carried` comes back
    with the event: `dag.test` loses what is in the deferral itself.
    """

    def __init__(
        self,
        follower: str,
        arguments: dict[str, Any],
        connection: str,
        *,
        deadline: str,
        position: dict[str, Any] | None = None,
        stops: bool = False,
        carried: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.follower = follower
        self.arguments = arguments
        self.connection = connection
        self.deadline = deadline
        self.position = position or {}
        self.stops = stops
        self.carried = carried or {}
        self._ended = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        members = ("follower", "arguments", "connection", "deadline", "position", "stops", "carried")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in members}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        event = await self._follow()
        self._ended = True
        yield TriggerEvent({"event": event, **self.carried})  # type: ignore[no-untyped-call]

    async def _follow(self) -> Event:
        follower = await self._follower(await self._kept() or self.position)
        deadline = datetime.fromisoformat(self.deadline)
        while True:
            try:
                lines = await asyncio.to_thread(follower.poll)
            except (ClientError, NoAnswerError) as error:
                return {"error": str(error)}
            for line in lines:
                self.log.log(line.level, "%s", line.text)
            if follower.ended:
                return {"outcome": follower.outcome()}
            if lines:
                await self._keep(follower.position)
            if datetime.now(UTC) >= deadline:
                return {"timed_out": True}
            await asyncio.sleep(follower.seconds_to_next())

    async def cleanup(self) -> None:
        """Airflow calls this whatever ended the trigger: a person, another triggerer, a shutdown.

        There is an `on_kill` for a person's action since 3.3, but up to 3.3.2 Airflow misses it where the
        trigger waits for a thread (asgiref loses the cancellation's message), calls it for triggers that move
        to another triggerer, too (apache/airflow#73454), and cancels it again with every second.
        """
        if not self._ended:
            await _finish(self._stop_if_abandoned())

    async def _follower(self, position: Mapping[str, Any]) -> Follower:
        follower = FOLLOWERS[self.follower](Aws(self.connection), self.arguments, position)
        await sync_to_async(follower.connect)()
        return follower

    async def _stop_if_abandoned(self) -> None:
        """Stop what is followed once Airflow confirms that no attempt of the task is deferred on it."""
        if not self.stops:
            return
        abandoned = await self._abandoned()
        if not abandoned:
            why = "the task still waits for it" if abandoned is False else "Airflow does not say why"
            self.log.info("This triggerer no longer follows %s, which goes on: %s", self.arguments, why)
            return
        follower = await self._follower({})
        self.log.warning("Stopping %s: its task was killed, cleared, marked or deleted", follower.subject)
        await asyncio.to_thread(follower.stop)

    async def _abandoned(self) -> bool | None:
        """Whether the task is no longer deferred; None if Airflow cannot be asked."""
        for _ in range(_QUESTIONS):
            try:
                return await sync_to_async(self._state)() != _DEFERRED
            except Exception as error:  # noqa: BLE001  whatever a dying triggerer raises
                self.log.info("Airflow does not tell the task's state: %s", error)
            await asyncio.sleep(_QUESTION_SECONDS)
        return None

    def _state(self) -> str | None:
        """The task's state; None for one without a state, as a cleared task or one of a deleted run."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        key = self._key()
        found = RuntimeTaskInstance.get_task_states(
            dag_id=key["dag_id"],
            task_ids=[key["task_id"]],
            run_ids=[key["run_id"]],
            map_index=key["map_index"],
        )
        states: Mapping[str, Any] = found.get(key["run_id"], {})
        return next((str(state) for state in states.values() if state), None)

    async def _kept(self) -> dict[str, Any] | None:
        """The position that an earlier triggerer kept; None where there is none, or it cannot be read."""
        from airflow.sdk.execution_time.xcom import XCom

        if self.task_instance is None:  # in `dag.test`
            return None

        def read() -> Any:
            return XCom.get_one(key=POSITION, **self._key())

        try:
            kept = await sync_to_async(read)()
        except Exception as error:  # noqa: BLE001  as in _keep
            self.log.warning("The position in the log is not known: %s", error)
            return None
        if kept and kept["of"] == [self.follower, self.arguments]:
            position: dict[str, Any] = kept["position"]
            return position
        return None

    async def _keep(self, position: Mapping[str, Any]) -> None:
        from airflow.sdk.execution_time.xcom import XCom

        if self.task_instance is None:  # in `dag.test`
            return

        def write() -> None:
            value = {"of": [self.follower, self.arguments], "position": position}
            XCom.set(key=POSITION, value=value, **self._key())

        try:
            await sync_to_async(write)()
        except Exception as error:  # noqa: BLE001  a lost position costs repeated lines, not the task
            self.log.warning("The position in the log could not be kept: %s", error)

    def _key(self) -> dict[str, Any]:
        ti = self.task_instance
        return {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")}
