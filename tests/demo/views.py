"""A run at two moments, for the tests of what is shown and recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from demo.airflow_api import DagRun, TaskState
from demo.observation import Job, Tuning, View

START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


EPOCHS = (
    {"epoch": 1.0, "train_loss": 1.5, "valid_accuracy": 0.4},
    {"epoch": 2.0, "train_loss": 0.9, "valid_accuracy": 0.8},
)


def job(name: str, begin: float, end: float | None, *, objective: float | None = None) -> Job:
    ended = end is not None
    return Job(
        name=name,
        status="Completed" if ended else "InProgress",
        stage="Completed" if ended else "Training",
        created=at(begin),
        ended=None if end is None else at(end),
        hyperparameters={"lr": "0.05123", "epochs": "5", "_tuning_objective_metric": "valid:accuracy"},
        metrics={"test:accuracy": 0.75} if ended else {},
        objective=objective,
        failure=None,
        epochs=EPOCHS if ended else EPOCHS[:1],
    )


def early() -> View:
    """Seven seconds into the run: the first trial trains."""
    trial = job("tune-001", 5, None)
    return View(
        run=DagRun("manual__1", "running", at(0), None),
        tasks=(
            TaskState("plan", "success", 1, at(0), at(4)),
            TaskState("tune", "running", 1, at(4), None),
            TaskState("train", "waiting", 0, None, None),
        ),
        tuning=Tuning("tune", "InProgress", at(5), None, (trial,), None, {}, None),
    )


def late() -> View:
    """After the run: jobs from 5 to 20 and from 25 to 40 of 50 seconds."""
    trial = job("tune-001", 5, 18, objective=0.8)
    return View(
        run=DagRun("manual__1", "success", at(0), at(50)),
        tasks=(
            TaskState("plan", "success", 1, at(0), at(4)),
            TaskState("tune", "success", 2, at(4), at(22)),
            TaskState("train", "success", 1, at(23), at(44)),
        ),
        tuning=Tuning("tune", "Completed", at(5), at(20), (trial,), "tune-001", {"lr": "0.05123"}, None),
        training=job("train-1", 25, 40),
    )
