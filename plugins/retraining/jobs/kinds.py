"""Kinds of SageMaker jobs: how their requests and descriptions name things, and what a description says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from retraining.runs.naming import NAME_LIMIT, TUNING_JOB_LIMIT
from retraining.runs.results import Trial

RUNNING = frozenset({"InProgress", "Stopping"})


@dataclass(frozen=True)
class JobKind:
    """Names of the members that requests and descriptions of a kind of job have.

    `compared` are paths in which a finished job must equal the request for its result to be adopted; `start`
    and `end` are the times between which the job ran.
    """

    noun: str
    name: str
    status: str
    limit: int
    compared: tuple[tuple[str, ...], ...]
    start: str
    end: str

    def seconds(self, description: Mapping[str, Any]) -> float | None:
        """How long a job ran, in seconds; None while either time is missing."""
        return seconds_between(description, self.start, self.end)


TRAINING = JobKind(
    "training job",
    "TrainingJobName",
    "TrainingJobStatus",
    NAME_LIMIT,
    (("HyperParameters",), ("InputDataConfig",)),
    "TrainingStartTime",
    "TrainingEndTime",
)
TUNING = JobKind(
    "tuning job",
    "HyperParameterTuningJobName",
    "HyperParameterTuningJobStatus",
    TUNING_JOB_LIMIT,
    (
        ("HyperParameterTuningJobConfig",),
        ("TrainingJobDefinition", "StaticHyperParameters"),
        ("TrainingJobDefinition", "InputDataConfig"),
    ),
    "CreationTime",
    "HyperParameterTuningEndTime",
)
PROCESSING = JobKind(
    "processing job",
    "ProcessingJobName",
    "ProcessingJobStatus",
    NAME_LIMIT,
    (("AppSpecification",), ("ProcessingInputs",), ("ProcessingOutputConfig",), ("Environment",)),
    "ProcessingStartTime",
    "ProcessingEndTime",
)


def seconds_between(description: Mapping[str, Any], start: str, end: str) -> float | None:
    """Seconds from one time in a description to another, or None where one is missing."""
    if not description.get(start) or not description.get(end):
        return None
    duration: timedelta = description[end] - description[start]
    return round(duration.total_seconds(), 1)


def trial_of(summary: Mapping[str, Any]) -> Trial:
    """A trial, from a TrainingJobSummary of its tuning job."""
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    return {
        "name": summary["TrainingJobName"],
        "status": summary["TrainingJobStatus"],
        "objective": metric.get("Value"),
        "hyperparameters": dict(summary.get("TunedHyperParameters", {})),
        "seconds": TRAINING.seconds(summary),
    }
