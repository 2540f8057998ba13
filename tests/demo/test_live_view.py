"""What is shown of a run: the lines that are new, and the tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO

import httpx
import pytest
from rich.console import Console

from demo.airflow_api import TaskState
from demo.live_view import changes, render, watch
from demo.observation import View
from demo.settings import DemoError
from tests.demo.views import EPOCHS, early, late


def test_the_first_look_tells_states_trials_and_epochs() -> None:
    assert list(changes(None, early())) == [
        "task plan: success after 4.0 s",
        "task tune: running",
        "trial 001 started: lr 0.05123, epochs 5",
        "trial 001 epoch=1 train_loss=1.5 valid_accuracy=0.4",
    ]


def test_a_later_look_tells_only_what_is_new() -> None:
    assert list(changes(early(), late())) == [
        "task tune: success after 18.0 s",
        "task train: success after 21.0 s",
        "trial 001 epoch=2 train_loss=0.9 valid_accuracy=0.8",
        "trial 001 Completed after 13.0 s, objective 0.8000",
        "training train-1 started: lr 0.05123, epochs 5",
        "training train-1 epoch=1 train_loss=1.5 valid_accuracy=0.4",
        "training train-1 epoch=2 train_loss=0.9 valid_accuracy=0.8",
        "training train-1 Completed after 15.0 s",
    ]
    assert not list(changes(late(), late()))


def test_the_tables_show_tasks_the_best_trial_and_the_epochs() -> None:
    out = StringIO()
    Console(file=out, width=120).print(render(late(), 50.0))
    for expected in (
        "plan",
        "tune (2 attempts)",
        "Tuning tune",
        "0.8000 ★",
        "Training train-1: Completed, 15 s",
        "0.900",
    ):
        assert expected in out.getvalue()


def test_everything_fits_a_small_terminal() -> None:
    view = late()
    assert view.tuning
    assert view.training
    names = [f"task_{number}" for number in range(17)]
    waiting = tuple(TaskState(name, "waiting", 0, None, None) for name in names[9:])
    tasks = (*(replace(view.tasks[0], task_id=name) for name in names[:8]), early().tasks[1], *waiting)
    trials = tuple(replace(view.tuning.trials[0], name=f"tune-{number:03}-0a1b2c3d") for number in range(20))
    running = replace(trials[0], name="tune-020-0a1b2c3d", created=datetime.now(UTC), ended=None)
    many = replace(
        view,
        tasks=tasks,
        tuning=replace(view.tuning, trials=(*trials, running), best_trial=trials[3].name),
        training=replace(view.training, epochs=EPOCHS * 30),
    )
    out = StringIO()
    Console(file=out, width=80).print(render(many, 50.0, height=24))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "▸ tune  running" in out.getvalue()
    assert "8 tasks wait" in out.getvalue()
    assert "003" in out.getvalue()
    assert "020" in out.getvalue()
    assert "…" not in out.getvalue()


def test_a_slow_answer_is_waited_for_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[View | Exception] = [httpx.ReadTimeout("slow"), DemoError("HTTP 500"), late()]

    def poll() -> View:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("demo.live_view.POLL_SECONDS", 0)
    assert watch(poll, Console(file=StringIO())) == late()
    monkeypatch.setattr("demo.live_view.PATIENCE_SECONDS", -1)
    answers.append(httpx.ReadTimeout("slow"))
    with pytest.raises(httpx.ReadTimeout):
        watch(poll, Console(file=StringIO()))


def test_watching_ends_with_the_run_on_a_terminal_and_elsewhere() -> None:
    for terminal in (True, False):
        out = StringIO()
        views = iter([late()])
        console = Console(file=out, width=120, force_terminal=terminal)
        assert watch(lambda looks=views: next(looks), console) == late()  # type: ignore[misc]
        assert "train-1" in out.getvalue()
