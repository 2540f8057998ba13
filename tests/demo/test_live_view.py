"""What is shown of a run: the lines that are new, and the tables."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from demo.live_view import changes, render, watch
from tests.demo.views import early, late


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
        "(attempt 2)",
        "Tuning tune",
        "0.8000 ★",
        "Training train-1: Completed, 15 s",
        "0.900",
    ):
        assert expected in out.getvalue()


def test_watching_ends_with_the_run_on_a_terminal_and_elsewhere() -> None:
    for terminal in (True, False):
        out = StringIO()
        views = iter([late()])
        console = Console(file=out, width=120, force_terminal=terminal)
        assert watch(lambda looks=views: next(looks), console) == late()  # type: ignore[misc]
        assert "train-1" in out.getvalue()
