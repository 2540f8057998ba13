"""What SageMaker says of a run's jobs where the tasks' results do not say it.

A job that failed, or whose task was killed, has been paid for all the same. On spot capacity a trial is
billed for less than its duration, which only its own description tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from retraining.answers import as_json
from retraining.aws import Aws
from retraining.jobs.adopting import describe_or_none, seconds_between
from retraining.planning.costs import TUNING, actual

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

log = logging.getLogger(__name__)

Document = dict[str, Any]
Result = Mapping[str, Any]


def run_costs(
    aws: Aws,
    plan: Result | None,
    *,
    tuning: Result | None,
    training: Result | None,
    evaluation: Result | None,
    candidates: Result | None = None,
) -> Document:
    """What the run's jobs cost, as `retraining.planning.costs.actual` returns it.

    Results that are None are looked up by the names in the requests, of which `candidates` has the
    evaluation's: a task without a result may have paid for a job, or for a part of one.
    """
    requests: Result = plan or {}
    costs = requests.get("run", {}).get("cost")
    sagemaker = aws.sagemaker
    tuning = tuning or _look_up(_tuning, sagemaker, requests.get("tuning"), "HyperParameterTuningJobName")
    training = training or _look_up(_training, sagemaker, requests.get("training"), "TrainingJobName")
    evaluation = evaluation or _look_up(
        _processing, sagemaker, (candidates or {}).get("request"), "ProcessingJobName"
    )
    return actual(
        costs,
        tuning=tuning,
        training=training,
        evaluation=evaluation,
        trials_billable=_billable(sagemaker, tuning) if tuning and _on_spot(costs) else None,
    )


def _look_up(
    describe: Callable[[SageMakerClient, str], Document | None],
    sagemaker: SageMakerClient,
    request: Result | None,
    name: str,
) -> Document | None:
    job = (request or {}).get(name)
    return describe(sagemaker, job) if job else None


def _tuning(sagemaker: SageMakerClient, name: str) -> Document | None:
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    try:
        found = [
            trial
            for page in pages.paginate(HyperParameterTuningJobName=name)
            for trial in page["TrainingJobSummaries"]
        ]
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ValidationException", "ResourceNotFound"}:
            return None
        raise
    trials = [
        {
            "name": trial["TrainingJobName"],
            "status": trial["TrainingJobStatus"],
            "seconds": seconds_between(dict(trial), "TrainingStartTime", "TrainingEndTime"),
        }
        for trial in found
    ]
    return {"trials": trials}


def _training(sagemaker: SageMakerClient, name: str) -> Document | None:
    found = describe_or_none(lambda job: dict(sagemaker.describe_training_job(TrainingJobName=job)), name)
    if found is None:
        return None
    return {
        "job": name,
        "status": found["TrainingJobStatus"],
        "seconds": seconds_between(found, "TrainingStartTime", "TrainingEndTime"),
        "billable_seconds": found.get("BillableTimeInSeconds"),
        "Training": as_json(found),
    }


def _processing(sagemaker: SageMakerClient, name: str) -> Document | None:
    found = describe_or_none(lambda job: dict(sagemaker.describe_processing_job(ProcessingJobName=job)), name)
    if found is None:
        return None
    return {
        "job": name,
        "status": found["ProcessingJobStatus"],
        "seconds": seconds_between(found, "ProcessingStartTime", "ProcessingEndTime"),
    }


def _billable(sagemaker: SageMakerClient, tuning: Result) -> dict[str, float]:
    """Billed seconds of every trial that has ended, by name."""
    names = [trial["name"] for trial in tuning["trials"]]
    described = {name: sagemaker.describe_training_job(TrainingJobName=name) for name in names}
    return {
        name: answer["BillableTimeInSeconds"]
        for name, answer in described.items()
        if "BillableTimeInSeconds" in answer
    }


def _on_spot(costs: Result | None) -> bool:
    return any(job["spot"] for job in (costs or {}).get("jobs", []) if job["kind"] == TUNING)
