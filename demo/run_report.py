"""The record of a run, `.local/run.json`: what was asked, what happened, and where the time went."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.observation import Job, View
from demo.prediction import EndpointResponse

Interval = tuple[datetime, datetime]


@dataclass
class Timings:
    """Wall-clock seconds of the demonstration's own steps, by name, in the order they were taken."""

    steps: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.steps[name] = round(self.steps.get(name, 0.0) + seconds, 2)


def covered(intervals: Iterable[Interval]) -> float:
    """Seconds that at least one of the intervals covers."""
    total, reached = 0.0, datetime.min.replace(tzinfo=UTC)
    for start, end in sorted(intervals):
        total += max(0.0, (end - max(start, reached)).total_seconds())
        reached = max(reached, end)
    return total


def job_intervals(view: View, endpoint: Mapping[str, Any] | None) -> list[Interval]:
    """When a SageMaker job of the run was going on, or its endpoint coming up."""
    now = datetime.now(UTC)
    intervals = []
    if view.tuning:
        intervals.append((view.tuning.created, view.tuning.ended or now))
    if view.training:
        intervals.append((view.training.created, view.training.ended or now))
    if endpoint and view.run.started and endpoint["LastModifiedTime"] > view.run.started:
        intervals.append((max(endpoint["CreationTime"], view.run.started), endpoint["LastModifiedTime"]))
    return intervals


def timing(view: View, endpoint: Mapping[str, Any] | None, timings: Timings) -> dict[str, Any]:
    """How the wall time divides: the demonstration's steps, and the run into jobs and orchestration."""
    if view.run.started is None:
        return {"steps": timings.steps}
    run_seconds = ((view.run.ended or datetime.now(UTC)) - view.run.started).total_seconds()
    job_seconds = covered(job_intervals(view, endpoint))
    return {
        "steps": timings.steps,
        "wall_seconds": round(sum(timings.steps.values()), 2),
        "run_seconds": round(run_seconds, 2),
        "job_seconds": round(job_seconds, 2),
        "orchestration_seconds": round(run_seconds - job_seconds, 2),
    }


def job_report(job: Job) -> dict[str, Any]:
    visible = {
        name: value for name, value in job.hyperparameters.items() if not name.startswith(("_", "sagemaker_"))
    }
    return {
        "name": job.name,
        "status": job.status,
        "seconds": round(job.seconds, 2),
        "hyperparameters": visible,
        "objective": job.objective,
        "metrics": {name.replace(":", "_"): value for name, value in job.metrics.items()},
        "epochs": list(job.epochs),
        "failure": job.failure,
    }


def tuning_report(view: View) -> dict[str, Any] | None:
    if view.tuning is None:
        return None
    return {
        "name": view.tuning.name,
        "status": view.tuning.status,
        "best_trial": view.tuning.best_trial,
        "trials": [job_report(trial) for trial in view.tuning.trials],
        "failure": view.tuning.failure,
    }


def endpoint_report(
    endpoint: Mapping[str, Any] | None, responses: Sequence[EndpointResponse]
) -> dict[str, Any] | None:
    if endpoint is None:
        return None
    return {
        "name": endpoint["EndpointName"],
        "status": endpoint["EndpointStatus"],
        "config": endpoint["EndpointConfigName"],
        "responses": [
            {
                "image": response.image,
                "expected": response.expected,
                "predictions": list(response.predictions),
            }
            for response in responses
        ],
    }


def report(  # noqa: PLR0917
    dag_id: str,
    view: View,
    conf: Mapping[str, Any],
    endpoint: Mapping[str, Any] | None,
    responses: Sequence[EndpointResponse],
    timings: Timings,
) -> dict[str, Any]:
    training = job_report(view.training) if view.training else None
    tuned = dict(view.tuning.best_hyperparameters) if view.tuning else {}
    return {
        "dag_id": dag_id,
        "run_id": view.run.run_id,
        "state": view.run.state,
        "started": view.run.started.isoformat() if view.run.started else None,
        "ended": view.run.ended.isoformat() if view.run.ended else None,
        "params": dict(conf),
        "tasks": [
            {
                "task_id": task.task_id,
                "state": task.state,
                "attempts": task.attempts,
                "seconds": None if task.seconds is None else round(task.seconds, 2),
            }
            for task in view.tasks
        ],
        "tuning": tuning_report(view),
        "best_hyperparameters": tuned or (training["hyperparameters"] if training else {}),
        "training": training,
        "metrics": training["metrics"] if training else {},
        "endpoint": endpoint_report(endpoint, responses),
        "timing": timing(view, endpoint, timings),
    }


def write_report(path: Path, content: Mapping[str, Any]) -> None:
    """Write the whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
