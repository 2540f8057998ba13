"""The provider's SageMaker operators, made safe to retry.

A task that runs again finds the job that an earlier try started and follows it, instead of paying for
another; a killed task stops its job; a stopped job is a failure. Here is what they share, with training and
tuning; `processing.py` has processing jobs, `deployment/endpoint.py` the endpoint.
Import inside a task only: the provider's operators load boto3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerBaseOperator,
    SageMakerTrainingOperator,
    SageMakerTuningOperator,
)
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from botocore.exceptions import ClientError

from retraining.aws.responses import as_json, contains, or_none
from retraining.errors import JobFailedError
from retraining.jobs.debugger_rules import RuleState, show_changes, states
from retraining.jobs.logs import TRAINING_JOBS, LogTail
from retraining.runs.naming import NAME_LIMIT, TUNING_JOB_LIMIT, attempt_name

Request = dict[str, Any]
Answer = Mapping[str, Any]

ATTEMPTS = 9
_ENDED_BADLY = {"Failed", "Stopped", "Stopping", "Deleting", "DeleteFailed"}
RUNNING = {"InProgress", "Stopping"}
# The platform's fault. Any other failure (AlgorithmError, ClientError) is the script's or the request's, and
# the same job again would fail the same way.
_WORTH_ANOTHER_TRY = ("InternalServerError", "CapacityError")
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 10.0


@dataclass(frozen=True)
class JobKind:
    """Names of the members that requests and descriptions of a kind of job have.

    `compared` are those in which a finished job must equal the request for its result to be taken over.
    """

    noun: str
    name: str
    status: str
    limit: int
    compared: tuple[tuple[str, ...], ...]


TRAINING = JobKind(
    "training job",
    "TrainingJobName",
    "TrainingJobStatus",
    NAME_LIMIT,
    (("HyperParameters",), ("InputDataConfig",)),
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
)


class Follows(SageMakerBaseOperator):
    """What all operators share."""

    console_url: str | None = None
    job_name: str | None = None
    """The job that this task stops when it is killed."""

    @property
    def client(self) -> Any:
        """The hook's SageMaker client, which the provider types as a boto3 factory."""
        return self.hook.get_conn()

    def wait(self, started: float) -> None:
        """Pause before the next look: 2 s, and a second more for every minute that passed, up to 10 s."""
        time.sleep(min(_FIRST_WAIT + (time.monotonic() - started) / 60, _LONGEST_WAIT))

    def set_console_url(self, page: str) -> None:
        client = self.client
        if client.meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            region = client.meta.region_name
            self.console_url = (
                f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/{page}"
            )

    def show(self, tail: LogTail) -> None:
        """Put a job's new lines into the task log."""
        for line in tail.lines():
            self.log.info("%s", line)

    def show_rest(self, tail: LogTail) -> None:
        """The same for a job that has ended: its last lines reach CloudWatch a little later."""
        time.sleep(1)
        self.show(tail)

    def adopt_or_create(
        self, kind: JobKind, describe: Callable[[str], Answer], create: Callable[[Request], Any]
    ) -> str:
        """Make sure that a job with the request `self.config` runs or has completed, and return its name.

        Raises JobFailedError when all attempts' names are used up.
        """
        wanted = self.config[kind.name]
        for attempt in range(1, ATTEMPTS + 1):
            self.job_name = attempt_name(wanted, attempt, kind.limit)  # before it exists: a kill now finds it
            description = describe_or_none(describe, self.job_name)
            if description is None:
                self._create(kind, create)
                return self.job_name
            obstacle = self._obstacle(kind, description)
            if obstacle is None:
                self.log.info("Following the %s %s", kind.noun, self.job_name)
                return self.job_name
            self.log.info("The %s %s %s; another attempt follows", kind.noun, self.job_name, obstacle)
        raise JobFailedError(f"The {kind.noun} {wanted} was tried {ATTEMPTS} times; start a new run.")

    def _obstacle(self, kind: JobKind, description: Answer) -> str | None:
        """Why an existing job is not the one that this task wants, or None."""
        if description[kind.status] in _ENDED_BADLY:
            return f"is {description[kind.status]}"
        pairs = ((member(description, path), member(self.config, path)) for path in kind.compared)
        return None if all(contains(*pair) for pair in pairs) else "was made from another request"

    def _create(self, kind: JobKind, create: Callable[[Request], Any]) -> None:
        self.log.info("Creating the %s %s", kind.noun, self.job_name)
        try:
            create({**self.config, kind.name: self.job_name})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUse":  # else another try has just created it
                raise

    def check_ended_well(self, kind: JobKind, description: Answer) -> None:
        """Raise for a job that did not complete: JobFailedError where a retry is useless."""
        status, name = description[kind.status], description[kind.name]
        reason = failure_reason(description)
        if status == "Completed":
            return
        if status != "Failed":
            detail = description.get("SecondaryStatus") or description.get("FailureReason") or status
            hint = "; raise the pipeline file's limit of its time" if "MaxRuntime" in detail else ""
            raise JobFailedError(
                f"The {kind.noun} {name} was stopped ({detail}){hint}. Clear the task to try again."
            )
        retry = reason.startswith(_WORTH_ANOTHER_TRY)
        raise (AirflowException if retry else JobFailedError)(f"The {kind.noun} {name} failed: {reason}")


class AdoptingTuningOperator(Follows, SageMakerTuningOperator):
    """Runs a tuning job and shows its trials in the task log.

    Returns `{job, status, seconds, objective, trials: [{name, status, objective, hyperparameters, seconds}],
    best: {...}}`.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        if self.config is None:
            raise AirflowSkipException("This run skips tuning.")
        self.preprocess_config()
        name = self.adopt_or_create(
            TUNING,
            self.hook.describe_tuning_job,
            lambda r: self.hook.create_tuning_job(r, wait_for_completion=False),
        )
        self.set_console_url(f"hyper-tuning-jobs/{name}")
        description = self._follow(name)
        self.check_ended_well(TUNING, description)
        return self._result(description)

    def on_kill(self) -> None:
        stop(self.client.stop_hyper_parameter_tuning_job, HyperParameterTuningJobName=self.job_name)

    def _follow(self, name: str) -> Answer:
        started, counted = time.monotonic(), None
        shown: dict[str, str] = {}
        while True:
            description = self.hook.describe_tuning_job(name)
            counters = (description["TrainingJobStatusCounters"], description["ObjectiveStatusCounters"])
            if counters != counted:
                counted, shown = counters, self._show(self._trials(name), shown)
            if description[TUNING.status] not in RUNNING:
                return description
            self.wait(started)

    def _trials(self, name: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
        answers = pages.paginate(
            HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
        )
        return [trial_result(summary) for page in answers for summary in page["TrainingJobSummaries"]]

    def _show(self, trials: list[dict[str, Any]], shown: dict[str, str]) -> dict[str, str]:
        """Log a line for every trial that changed."""
        lines = {trial["name"]: _line(trial) for trial in trials}
        for name, line in lines.items():
            if shown.get(name) != line:
                self.log.info("%s", line)
        return lines

    def _result(self, description: Answer) -> dict[str, Any]:
        trials = self._trials(description[TUNING.name])
        # of a search that goes on from another on the same data, the best of both
        best = description.get("OverallBestTrainingJob") or description.get("BestTrainingJob")
        if not best:
            raise JobFailedError(
                f"The tuning job {description[TUNING.name]} completed without a best trial: no trial "
                "reported its objective. Read the trials' logs."
            )
        result = {
            "job": description[TUNING.name],
            "status": description[TUNING.status],
            "seconds": seconds_between(description, "CreationTime", "HyperParameterTuningEndTime"),
            "objective": description["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"][
                "MetricName"
            ],
            "trials": trials,
            "best": trial_result(best),
        }
        self.log.info("The best of %d trials: %s", len(trials), _line(result["best"]))
        return result


class AdoptingTrainingOperator(Follows, SageMakerTrainingOperator):
    """Runs a training job and follows its log.

    Returns `{job, status, seconds, billable_seconds, metrics: {name: value}, hyperparameters, model_artifact,
    Training}` with SageMaker's own description under `Training`.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        self.preprocess_config()
        name = self.adopt_or_create(
            TRAINING,
            self.hook.describe_training_job,
            lambda r: self.hook.create_training_job(r, wait_for_completion=False, print_log=False),
        )
        self.set_console_url(f"jobs/{name}")
        description = self._follow(name)
        self.check_ended_well(TRAINING, description)
        return training_result(description)

    def on_kill(self) -> None:
        stop(self.client.stop_training_job, TrainingJobName=self.job_name)

    def _follow(self, name: str) -> Answer:
        tail = LogTail(self.hook.logs_hook.get_conn(), TRAINING_JOBS, f"{name}/")
        started = time.monotonic()
        transitions = 0
        rules: dict[str, RuleState] = {}
        while True:
            description: Answer = self.hook.describe_training_job(name)
            self.show(tail)
            transitions = self._show_transitions(description, transitions)
            rules = show_changes(states(description), rules, self.log.log)
            if description[TRAINING.status] not in RUNNING:
                break
            self.wait(started)
        self.show_rest(tail)
        return description

    def _show_transitions(self, description: Answer, shown: int) -> int:
        transitions = description.get("SecondaryStatusTransitions", [])
        for transition in transitions[shown:]:
            self.log.info("[SageMaker] %s: %s", transition["Status"], transition.get("StatusMessage", ""))
        return len(transitions)


def failure_reason(description: Answer) -> str:
    """Why a job failed: what the platform says and, for a processing job, the script's own exit message."""
    said = (description.get("FailureReason"), description.get("ExitMessage"))
    return " | ".join(text for text in said if text) or "no reason given"


def describe_or_none(describe: Callable[[str], Answer], name: str) -> Answer | None:
    """The description, or None where there is nothing of the name."""
    return or_none(partial(describe, name))


def member(document: Any, path: tuple[str, ...]) -> Any:
    """What lies in a document under a path of keys, or None."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def stop(operation: Callable[..., Any], **name: str | None) -> None:
    """Stop a job that may have ended, or may never have been created."""
    if None not in name.values():
        or_none(partial(operation, **name))


def seconds_between(description: Answer, start: str, end: str) -> float | None:
    """Seconds from one time in a description to another, or None where one is missing."""
    if not description.get(start) or not description.get(end):
        return None
    duration: timedelta = description[end] - description[start]
    return round(duration.total_seconds(), 1)


def trial_result(summary: Answer) -> dict[str, Any]:
    """A trial in the tuning operator's result."""
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    return {
        "name": summary["TrainingJobName"],
        "status": summary["TrainingJobStatus"],
        "objective": metric.get("Value"),
        "hyperparameters": dict(summary.get("TunedHyperParameters", {})),
        "seconds": seconds_between(summary, "TrainingStartTime", "TrainingEndTime"),
    }


def _line(trial: Mapping[str, Any]) -> str:
    values = " ".join(f"{name}={_short(value)}" for name, value in sorted(trial["hyperparameters"].items()))
    objective = "" if trial["objective"] is None else f" objective={trial['objective']:.4f}"
    duration = "" if trial["seconds"] is None else f" in {trial['seconds']:.0f} s"
    return f"Trial {trial['name']}: {trial['status']}{objective} {values}{duration}"


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def training_result(description: Answer) -> dict[str, Any]:
    """What the training operator returns of a job; `model_artifact` is None where it left none."""
    metrics = {m["MetricName"]: m["Value"] for m in description.get("FinalMetricDataList", [])}
    return {
        "job": description["TrainingJobName"],
        "status": description["TrainingJobStatus"],
        "seconds": seconds_between(description, "TrainingStartTime", "TrainingEndTime"),
        "billable_seconds": description.get("BillableTimeInSeconds"),
        "metrics": metrics,
        "hyperparameters": dict(description["HyperParameters"]),
        "model_artifact": member(description, ("ModelArtifacts", "S3ModelArtifacts")),
        "Training": as_json(description),
    }
