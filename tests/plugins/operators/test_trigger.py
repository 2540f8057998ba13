"""The trigger of deferred tasks: what it shows, where it goes on, and when it stops a job."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom
from botocore.exceptions import EndpointConnectionError
from retraining.errors import NoAnswerError
from retraining.jobs import following
from retraining.jobs.followers import TrainingFollower
from retraining.jobs.following import Line
from retraining.operators import deferring, trigger
from retraining.operators.trigger import FollowTrigger

DEADLINE = "2999-01-01T00:00:00+00:00"


class Scripted(TrainingFollower):
    """Follows a list of polls, each a list of lines; an exception in their place is raised."""

    clients = ()  # type: ignore[assignment]
    polls: list[Any]
    stopped: list[str]

    def news(self) -> Iterator[Line]:
        place = self.position.get("place", 0)
        lines = self.polls[place]
        if isinstance(lines, Exception):
            self.polls[place] = []
            raise lines
        yield from (Line(text) for text in lines)
        self.position["place"] = place + 1
        self.ended = place + 1 == len(self.polls)

    def pause(self, passed: float) -> float:  # noqa: ARG002
        return 0.01

    def stop(self) -> None:
        self.stopped.append(self.name)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The XComs."""
    store: dict[str, Any] = {}

    def write(*, key: str, value: Any, **_: Any) -> None:
        store[key] = copy.deepcopy(value)

    monkeypatch.setattr(XCom, "set", write)
    monkeypatch.setattr(XCom, "get_one", lambda *, key, **_: store.get(key))
    return store


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(trigger, "FOLLOWERS", {"Scripted": Scripted})
    Scripted.polls, Scripted.stopped = [["one"], ["two", "three"], ["four"]], []
    return Scripted


def made(**arguments: Any) -> FollowTrigger:
    one = FollowTrigger("Scripted", {"name": "job"}, "aws_default", deadline=DEADLINE, **arguments)
    one.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)  # type: ignore[assignment]
    return one


async def event_of(one: FollowTrigger) -> Any:
    async for event in one.run():
        return event.payload["event"]
    raise AssertionError("no event")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the task's log."""
    lines: list[str] = []
    log = SimpleNamespace(
        log=lambda _level, text, *values: lines.append(text % values),
        info=lambda text, *values: lines.append(text % values),
        warning=lambda text, *values: lines.append(text % values),
    )
    monkeypatch.setattr(FollowTrigger, "log", log)
    return lines


@pytest.mark.usefixtures("kept", "scripted")
def test_lines_come_in_order_and_the_outcome_last(shown: list[str]) -> None:
    assert asyncio.run(event_of(made())) == {"outcome": {}}
    assert shown == ["one", "two", "three", "four"]


@pytest.mark.usefixtures("kept")
def test_another_triggerer_goes_on_where_the_last_one_was_killed(
    scripted: type[Scripted], shown: list[str]
) -> None:
    killed = made()
    scripted.polls = [["one"], ["two", "three"], *[[]] * 10_000]

    async def cut_off() -> None:
        task = asyncio.create_task(event_of(killed))
        while "three" not in shown:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cut_off())
    scripted.polls = [["one"], ["two", "three"], ["four"]]
    assert asyncio.run(event_of(made())) == {"outcome": {}}
    assert shown == ["one", "two", "three", "four"]


@pytest.mark.usefixtures("kept")
def test_a_lost_answer_is_asked_for_again(scripted: type[Scripted], shown: list[str]) -> None:
    scripted.polls = [["one"], EndpointConnectionError(endpoint_url="http://here"), ["two"]]
    assert asyncio.run(event_of(made())) == {"outcome": {}}
    assert "Asking again" in shown[1]
    assert shown[2:] == ["There is news of the training job job again.", "two"]


@pytest.mark.usefixtures("kept")
def test_no_answer_for_long_is_an_error_that_leaves_the_job_alone(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOST_SECONDS", -1.0)
    scripted.polls = [EndpointConnectionError(endpoint_url="http://here")]
    event = asyncio.run(event_of(made(stops=True)))
    assert "no news of the training job job" in event["error"]
    assert scripted.stopped == []
    operator = SimpleNamespace(restore=lambda _saved: None)
    with pytest.raises(NoAnswerError, match="no news"):
        deferring.DeferringOperator.resume(
            operator,  # type: ignore[arg-type]
            {},
            {"event": event, "then": "finish", "state": {}, "saved": {}},
        )


@pytest.mark.usefixtures("kept", "scripted")
def test_a_trigger_ends_at_its_deadline() -> None:
    Scripted.polls = [[]] * 100
    one = made()
    one.deadline = "2020-01-01T00:00:00+00:00"
    assert asyncio.run(event_of(one)) == {"timed_out": True}


def unanswered() -> str:
    raise ConnectionError("no API server")


@pytest.mark.parametrize(
    ("state", "stops", "stopped"),
    [
        (lambda: "failed", True, ["job"]),
        (lambda: None, True, ["job"]),
        (lambda: "deferred", True, []),
        (unanswered, True, []),
        (lambda: "failed", False, []),
    ],
    ids=["marked failed", "cleared or deleted", "handed on", "could not tell", "keeps running"],
)
def test_a_job_is_stopped_once_airflow_confirms_that_nobody_waits_for_it(
    scripted: type[Scripted],
    state: Callable[[], str | None],
    stops: bool,
    stopped: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trigger, "_QUESTION_SECONDS", 0.0)
    monkeypatch.setattr(FollowTrigger, "_state", lambda _self: state())
    asyncio.run(made(stops=stops).cleanup())
    assert scripted.stopped == stopped


def test_a_stop_goes_on_where_airflow_cancels_it_again(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, cancelled = threading.Event(), threading.Event()

    def state(_self: FollowTrigger) -> str:
        asked.set()
        assert cancelled.wait(30)
        return "failed"

    monkeypatch.setattr(FollowTrigger, "_state", state)

    async def kill() -> None:
        task = asyncio.create_task(made(stops=True).cleanup())
        await asyncio.to_thread(asked.wait, 30)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        cancelled.set()
        await asyncio.wait([task])

    asyncio.run(kill())
    assert scripted.stopped == ["job"]


@pytest.mark.usefixtures("kept")
def test_a_trigger_that_ended_by_itself_stops_nothing(
    scripted: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FollowTrigger, "_state", lambda _self: "scheduled")
    one = made(stops=True)
    asyncio.run(event_of(one))
    asyncio.run(one.cleanup())
    assert scripted.stopped == []


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("False", False), ("True", True)])
def test_airflows_setting_counts_where_it_is_set(
    value: str | None,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    assert deferring.defer_by_default() is expected
