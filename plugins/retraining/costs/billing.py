"""What a run's jobs cost: the billed time of every job at the prices of the run's estimate.

Tasks' results do not cover all of it. A job that failed, or whose task was killed, is billed all the same,
and so is each attempt before the last. On spot capacity a trial is billed for less than its duration, which
only its own description states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from rich.table import Table

from retraining.aws.clients import Aws
from retraining.aws.responses import or_none
from retraining.costs.estimate import EVALUATION, TRAINING, TUNING
from retraining.costs.prices import HOUR, total, volume_usd
from retraining.formatting import duration, money, rendered
from retraining.jobs import kinds
from retraining.runs.naming import ATTEMPT_LIMIT, attempt_name
from retraining.runs.results import (
    ActualCost,
    CostEstimate,
    EstimatedJob,
    EvaluationResult,
    JobCost,
    KindCost,
    RunResults,
    TrainingResult,
    Trial,
)

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient


@dataclass(frozen=True)
class BilledJob:
    """A job or a trial. `billable_seconds` is None where nothing but its duration, `seconds`, is known."""

    kind: str
    name: str
    status: str
    seconds: float | None
    billable_seconds: float | None = None


def actual_cost(aws: Aws, results: RunResults) -> ActualCost:
    """What the run's jobs cost, whether or not their tasks have a result.

    Attempts without a result are looked up in SageMaker, under the names that follow from the plan's
    requests.
    """
    plan, sagemaker = results.get("plan"), aws.sagemaker
    tuning, training, evaluation = results.get("tuning"), results.get("training"), results.get("evaluation")
    trials = [_trial(trial) for trial in tuning["trials"]] if tuning else []
    models = [_training(training)] if training else []
    judged = [_evaluation(evaluation)] if evaluation else []
    if plan:
        others = partial(_other_attempts, sagemaker)
        trials = others(_trials_of, kinds.TUNING, plan["tuning"], tuning) + trials
        models = others(_training_of, kinds.TRAINING, plan["training"], training) + models
        judged = others(_evaluation_of, kinds.PROCESSING, plan["evaluation"], evaluation) + judged
    estimate = plan["run"]["cost"] if plan else None
    if estimate and any(job["spot"] for job in estimate["jobs"] if job["kind"] == TUNING):
        trials = [_with_billed_time(sagemaker, trial) for trial in trials]
    return cost_of([*trials, *models, *judged], estimate)


def cost_of(jobs: Iterable[BilledJob], estimate: CostEstimate | None) -> ActualCost:
    """The jobs' costs at the estimate's prices; unknown without one."""
    planned = {job["kind"]: job for job in estimate["jobs"]} if estimate else {}
    storage = estimate["storage_gb_month"] if estimate else 0.0
    rows = [_priced(job, planned.get(job.kind), storage) for job in jobs]
    return {
        "jobs": rows,
        "by_kind": {
            kind: _kind_cost([row for row in rows if row["kind"] == kind])
            for kind in dict.fromkeys(row["kind"] for row in rows)
        },
        "billable_seconds": sum(row["billable_seconds"] or 0 for row in rows),
        "usd": sum(row["usd"] or 0 for row in rows),
        "complete": all(row["usd"] is not None for row in rows),
    }


def cost_table(costs: ActualCost) -> str:
    """What a run cost, for the task log."""
    grid = Table("job", "status", "billed", "cost", "saved by spot")
    grid.columns[0].overflow = "fold"
    for kind, sums in costs["by_kind"].items():
        rows = [row for row in costs["jobs"] if row["kind"] == kind]
        title = f"{kind} on {rows[0]['instance_type'] or 'an unknown instance'}"
        grid.add_row(title, "", duration(sums["billable_seconds"]), money(sums["usd"]), "")
        for row in rows:
            saving = "" if row["spot_saving"] is None else f"{row['spot_saving']:.0%}"
            billed = duration(row["billable_seconds"])
            grid.add_row(f"  {row['job']}", row["status"], billed, money(row["usd"]), saving)
        grid.add_section()
    total_usd = money(costs["usd"]) + ("" if costs["complete"] else " at least")
    grid.add_row("the run", "", duration(costs["billable_seconds"]), total_usd, "")
    return rendered(grid)


def _other_attempts(
    sagemaker: SageMakerClient,
    find: Callable[[SageMakerClient, str], list[BilledJob] | None],
    kind: kinds.JobKind,
    request: Mapping[str, object] | None,
    result: Mapping[str, object] | None,
) -> list[BilledJob]:
    """Jobs of all attempts at a request but the one with the result."""
    jobs: list[BilledJob] = []
    if request is None:
        return jobs
    for attempt in range(1, ATTEMPT_LIMIT + 1):
        name = attempt_name(str(request[kind.name]), attempt, kind.name_limit)
        if result and result["job"] == name:
            continue
        found = find(sagemaker, name)
        if found is None:
            break
        jobs += found
    return jobs


def _trial(trial: Trial) -> BilledJob:
    return BilledJob(TUNING, trial["name"], trial["status"], trial["seconds"])


def _training(result: TrainingResult) -> BilledJob:
    """With TrainingTimeInSeconds, of which spot savings are a share, as its duration where it is known."""
    seconds = result["Training"].get("TrainingTimeInSeconds", result["seconds"])
    return BilledJob(TRAINING, result["job"], result["status"], seconds, result["billable_seconds"])


def _evaluation(result: EvaluationResult) -> BilledJob:
    return BilledJob(EVALUATION, result["job"], result["status"], result["seconds"])


def _trials_of(sagemaker: SageMakerClient, name: str) -> list[BilledJob] | None:
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    found = or_none(lambda: list(pages.paginate(HyperParameterTuningJobName=name)))
    if found is None:
        return None
    return [_trial(kinds.trial_of(summary)) for page in found for summary in page["TrainingJobSummaries"]]


def _training_of(sagemaker: SageMakerClient, name: str) -> list[BilledJob] | None:
    found = or_none(lambda: sagemaker.describe_training_job(TrainingJobName=name))
    if found is None:
        return None
    seconds = found.get("TrainingTimeInSeconds", kinds.TRAINING.seconds(found))
    billable = found.get("BillableTimeInSeconds")
    return [BilledJob(TRAINING, name, found["TrainingJobStatus"], seconds, billable)]


def _evaluation_of(sagemaker: SageMakerClient, name: str) -> list[BilledJob] | None:
    found = or_none(lambda: sagemaker.describe_processing_job(ProcessingJobName=name))
    if found is None:
        return None
    return [BilledJob(EVALUATION, name, found["ProcessingJobStatus"], kinds.PROCESSING.seconds(found))]


def _with_billed_time(sagemaker: SageMakerClient, trial: BilledJob) -> BilledJob:
    billed = sagemaker.describe_training_job(TrainingJobName=trial.name).get("BillableTimeInSeconds")
    return replace(trial, billable_seconds=billed)


def _priced(job: BilledJob, planned: EstimatedJob | None, storage_gb_month: float) -> JobCost:
    seconds = job.seconds
    billable = seconds if job.billable_seconds is None else job.billable_seconds
    hourly = planned["usd_per_hour"] if planned else None
    usd = saving = None
    if planned and hourly is not None and billable is not None:
        volume = volume_usd(planned["volume_gb"], seconds or billable, storage_gb_month)
        usd = hourly * billable / HOUR + volume
    if planned and planned["spot"] and seconds and billable is not None:
        saving = max(0.0, 1 - billable / seconds)
    return {
        "kind": job.kind,
        "job": job.name,
        "status": job.status,
        "seconds": seconds,
        "billable_seconds": billable,
        "instance_type": planned["instance_type"] if planned else None,
        "usd": usd,
        "spot_saving": saving,
    }


def _kind_cost(rows: list[JobCost]) -> KindCost:
    return {
        "jobs": len(rows),
        "billable_seconds": sum(row["billable_seconds"] or 0 for row in rows),
        "usd": total(row["usd"] for row in rows),
    }
