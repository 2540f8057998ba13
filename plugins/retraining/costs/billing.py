"""What SageMaker says of a run's jobs where the tasks' results do not say it.

A job that failed, or whose task was killed, has been paid for all the same, and so has each attempt before
the last. On spot capacity a trial is billed for less than its duration, which only its own description tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.aws.responses import or_none
from retraining.costs.estimate import EVALUATION, TRAINING, TUNING, actual
from retraining.operators.evaluation import PROCESSING as PROCESSING_JOB
from retraining.operators.jobs import (
    ATTEMPTS,
    JobKind,
    seconds_between,
    training_result,
    trial_result,
)
from retraining.operators.jobs import (
    TRAINING as TRAINING_JOB,
)
from retraining.operators.jobs import (
    TUNING as TUNING_JOB,
)
from retraining.runs.naming import attempt_name

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

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
    """What the run's jobs cost, as `retraining.costs.estimate.actual` returns it.

    Beside the results, every attempt is looked up by the names in the requests, of which `candidates` has the
    evaluation's, or else the plan: a task without a result may have paid for a job, or for a part of one.
    """
    requests: Result = plan or {}
    costs = requests.get("run", {}).get("cost")
    sagemaker = aws.sagemaker
    judging = (candidates or {}).get("request") or requests.get("evaluation")
    attempts = {
        TUNING: _attempts(_tuning, sagemaker, TUNING_JOB, requests.get("tuning"), tuning),
        TRAINING: _attempts(_training, sagemaker, TRAINING_JOB, requests.get("training"), training),
        EVALUATION: _attempts(_processing, sagemaker, PROCESSING_JOB, judging, evaluation),
    }
    trials = [trial["name"] for search in attempts[TUNING] for trial in search["trials"]]
    return actual(costs, attempts, trials_billable=_billable(sagemaker, trials) if _on_spot(costs) else None)


def _attempts(
    describe: Callable[[SageMakerClient, str], Document | None],
    sagemaker: SageMakerClient,
    kind: JobKind,
    request: Result | None,
    result: Result | None,
) -> list[Result]:
    """The task's result, if it has one, and what SageMaker knows of the job's other attempts."""
    known = [result] if result else []
    wanted = (request or {}).get(kind.name)
    if not wanted:
        return known
    others = []
    for attempt in range(1, ATTEMPTS + 1):
        name = attempt_name(wanted, attempt, kind.limit)
        if result and result.get("job") == name:
            continue
        found = describe(sagemaker, name)
        if found is None:
            break
        others.append(found)
    return [*others, *known]


def _tuning(sagemaker: SageMakerClient, name: str) -> Document | None:
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    found = or_none(lambda: list(pages.paginate(HyperParameterTuningJobName=name)))
    if found is None:
        return None
    trials = [trial_result(dict(trial)) for page in found for trial in page["TrainingJobSummaries"]]
    return {"job": name, "trials": trials}


def _training(sagemaker: SageMakerClient, name: str) -> Document | None:
    found = or_none(lambda: sagemaker.describe_training_job(TrainingJobName=name))
    return None if found is None else training_result(dict(found))


def _processing(sagemaker: SageMakerClient, name: str) -> Document | None:
    found = or_none(lambda: sagemaker.describe_processing_job(ProcessingJobName=name))
    if found is None:
        return None
    return {
        "job": name,
        "status": found["ProcessingJobStatus"],
        "seconds": seconds_between(dict(found), "ProcessingStartTime", "ProcessingEndTime"),
    }


def _billable(sagemaker: SageMakerClient, trials: list[str]) -> dict[str, float]:
    """Billed seconds of every trial that has ended, by name."""
    described = {name: sagemaker.describe_training_job(TrainingJobName=name) for name in trials}
    return {
        name: answer["BillableTimeInSeconds"]
        for name, answer in described.items()
        if "BillableTimeInSeconds" in answer
    }


def _on_spot(costs: Result | None) -> bool:
    return any(job["spot"] for job in (costs or {}).get("jobs", []) if job["kind"] == TUNING)
