"""Kinds of SageMaker jobs: how their requests and descriptions name things, and what a description says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from retraining.aws.clients import Aws
from retraining.aws.responses import member, or_none
from retraining.runs.naming import NAME_LIMIT, TUNING_JOB_LIMIT
from retraining.runs.results import Trial

RUNNING = frozenset({"InProgress", "Stopping"})

_AROUND_A_JOB = timedelta(hours=1)
"""For what SageMaker's limit leaves out: instances, image, download, upload. Capacity comes within minutes or
the job fails."""


@dataclass(frozen=True)
class JobKind:
    """Names of the members that requests and descriptions of a kind of job have.

    `compared` are paths in which a finished job must equal the request for its result to be adopted; `start`
    and `end` are the times between which the job ran; `operation` is the end of the API's operations, as in
    `describe_<operation>`.
    """

    noun: str
    operation: str
    name: str
    status: str
    name_limit: int
    compared: tuple[tuple[str, ...], ...]
    start: str
    end: str

    def seconds(self, description: Mapping[str, Any]) -> float | None:
        """How long a job ran, in seconds; None while either time is missing."""
        return seconds_between(description, self.start, self.end)

    def lineage(self, description: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """URIs of what a completed job read and wrote."""
        definition = description.get("TrainingJobDefinition", description)
        channels = (
            member(one, "DataSource", "S3DataSource") for one in definition.get("InputDataConfig", ())
        )
        inputs = (member(one, "S3Input") for one in description.get("ProcessingInputs", ()))
        outputs = member(description, "ProcessingOutputConfig", "Outputs") or ()
        reads = [one["S3Uri"] for one in (*channels, *inputs) if one]
        writes = [one["S3Output"]["S3Uri"] for one in outputs if one.get("S3Output")]
        if artifact := member(description, "ModelArtifacts", "S3ModelArtifacts"):
            writes.append(artifact)
        return reads, writes

    def describe(self, aws: Aws, name: str) -> Mapping[str, Any]:
        """SageMaker's description of a job. Raises ClientError, also for a job that does not exist."""
        response: Mapping[str, Any] = getattr(aws.sagemaker, f"describe_{self.operation}")(
            **{self.name: name}
        )
        return response

    @property
    def summaries(self) -> str:
        """The member of the list operation's responses that holds the jobs."""
        return self.name.removesuffix("Name") + "Summaries"

    def stop(self, aws: Aws, name: str) -> None:
        """Stop a job, which may have ended, or may never have been created."""
        or_none(partial(getattr(aws.sagemaker, f"stop_{self.operation}"), **{self.name: name}))

    def limit(self, request: Mapping[str, Any]) -> timedelta:
        """How long a job of this request may take, by its own limits and with time for what is around it."""
        definition = request.get("TrainingJobDefinition", request)
        condition = definition.get("StoppingCondition", {})
        seconds = condition.get("MaxWaitTimeInSeconds") or condition.get("MaxRuntimeInSeconds", 86_400)
        limits = member(request, "HyperParameterTuningJobConfig", "ResourceLimits") or {}
        trials, parallel = (limits.get(f"Max{n}TrainingJobs", 1) for n in ("NumberOf", "Parallel"))
        rounds: int = math.ceil(trials / parallel)
        return rounds * (timedelta(seconds=seconds) + _AROUND_A_JOB)


TRAINING = JobKind(
    "training job",
    "training_job",
    "TrainingJobName",
    "TrainingJobStatus",
    NAME_LIMIT,
    (("HyperParameters",), ("InputDataConfig",)),
    "TrainingStartTime",
    "TrainingEndTime",
)
TUNING = JobKind(
    "tuning job",
    "hyper_parameter_tuning_job",
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
    "processing_job",
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
        "reason": _point(summary.get("FailureReason")),
    }


def _point(reason: str | None) -> str | None:
    """The script's own error in the FailureReason of AWS's training toolkit, which has its command, too.

    Trials that fail alike differ in the command alone, and in whether the toolkit saw the error's class.
    """
    found = re.search(r'ErrorMessage "(.*)"\s*Command "', reason or "", re.DOTALL)
    if not found:
        return reason
    return re.sub(r"^\w*ValueError: ", "", found[1].strip().rpartition("\n")[2].strip())
