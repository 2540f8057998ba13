"""The operations on hyperparameter tuning jobs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from local_sagemaker.context import Answer, Context, Operation, Request
from local_sagemaker.errors import ApiError, ResourceInUseError, ResourceNotFoundError, ValidationError
from local_sagemaker.listing import page
from local_sagemaker.store import Document, DocumentExistsError
from local_sagemaker.tags import forget_tags, set_tags
from local_sagemaker.tuning import trials
from local_sagemaker.tuning.plans import Plan, read_plan
from local_sagemaker.tuning.progress import KIND, Ending, TrainingJobs
from local_sagemaker.tuning.supervisor import Supervisor
from local_sagemaker.tuning.trials import Summary
from local_sagemaker.tuning.warm_start import inherit

_REQUEST_MEMBERS = (
    "HyperParameterTuningJobName",
    "HyperParameterTuningJobConfig",
    "TrainingJobDefinition",
    "TrainingJobDefinitions",
    "WarmStartConfig",
)


class TuningJobs:
    """Tuning jobs in the store, and a supervisor for each that runs."""

    def __init__(self, context: Context, training_jobs: TrainingJobs) -> None:
        self._context = context
        self._store = context.store
        self._training = training_jobs
        self._supervisors: dict[str, Supervisor] = {}
        self._lock = threading.Lock()

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateHyperParameterTuningJob": self.create,
            "DescribeHyperParameterTuningJob": self.describe,
            "StopHyperParameterTuningJob": self.stop,
            "DeleteHyperParameterTuningJob": self.delete,
            "ListHyperParameterTuningJobs": self.list_jobs,
            "ListTrainingJobsForHyperParameterTuningJob": self.list_training_jobs,
        }

    def resume(self) -> None:
        for job in self._store.list(KIND):
            if _is_active(job):
                self._supervise(job["HyperParameterTuningJobName"])

    def close(self) -> None:
        with self._lock:
            supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.close()

    def create(self, request: Request) -> Answer:
        name = request["HyperParameterTuningJobName"]
        arn = self._context.arn(KIND, name)
        if self._store.get(KIND, name) is not None:
            raise _name_taken(arn)
        job = new_document(self._context, request)
        self._check_training(job)
        try:
            self._store.create(KIND, name, job)
        except DocumentExistsError as error:
            raise _name_taken(arn) from error
        set_tags(self._context, arn, request.get("Tags"))
        self._supervise(name)
        return {"HyperParameterTuningJobArn": arn}

    def describe(self, request: Request) -> Answer:
        job = self._get(request, ValidationError)
        plan = read_plan(job)
        summaries = self._summaries(job, plan)
        answer: Answer = {
            **{member: value for member, value in job.items() if not member.startswith("_")},
            **_described_definitions(job, plan),
            **_counters(summaries),
            "TuningJobCompletionDetails": {
                "NumberOfTrainingJobsObjectiveNotImproving": trials.not_improving(
                    summaries, maximize=plan.maximize
                )
            },
            "ConsumedResources": {"RuntimeInSeconds": self._runtime(job)},
        }
        best = trials.best(filter(trials.has_ended, summaries), maximize=plan.maximize)
        if best is not None:
            answer["BestTrainingJob"] = best
        if job.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
            candidates = [item for item in (job["_inherited_best"], best) if item is not None]
            answer["OverallBestTrainingJob"] = trials.best(candidates, maximize=plan.maximize)
        return answer

    def stop(self, request: Request) -> Answer:
        name = self._get(request, ResourceNotFoundError)["HyperParameterTuningJobName"]

        def change(job: Document) -> None:
            if not _is_active(job):
                status = job["HyperParameterTuningJobStatus"]
                raise ValidationError(
                    f"The request was rejected because the tuning job is in status {status}."
                )
            job.update(
                HyperParameterTuningJobStatus="Stopping",
                LastModifiedTime=self._context.clock(),
                _ending=Ending.REQUESTED.value,
            )

        self._store.update(KIND, name, change)
        with self._lock:
            supervisor = self._supervisors.get(name)
        if supervisor is not None:
            supervisor.wake()
        return {}

    def delete(self, request: Request) -> Answer:
        """Forget a tuning job that has ended; its training jobs stay."""
        job = self._get(request, ResourceNotFoundError)
        if _is_active(job):
            raise ValidationError(
                f"The tuning job is {job['HyperParameterTuningJobStatus']}; stop it and wait before it is "
                "deleted."
            )
        self._store.delete(KIND, job["HyperParameterTuningJobName"])
        forget_tags(self._context, job["HyperParameterTuningJobArn"])
        return {}

    def list_jobs(self, request: Request) -> Answer:
        jobs = [job for job in self._store.list(KIND) if _matches(job, request)]
        keys: dict[str, Callable[[Document], Any]] = {
            "Name": lambda job: job["HyperParameterTuningJobName"],
            "Status": lambda job: job["HyperParameterTuningJobStatus"],
            "CreationTime": lambda job: job["CreationTime"],
        }
        jobs.sort(key=keys[request.get("SortBy", "Name")], reverse=_is_descending(request))
        shown, token = page(jobs, request)
        summaries = [self._list_item(job) for job in shown]
        return {"HyperParameterTuningJobSummaries": summaries, "NextToken": token}

    def list_training_jobs(self, request: Request) -> Answer:
        job = self._get(request, ValidationError)
        summaries = self._summaries(job, read_plan(job))
        wanted = request.get("StatusEquals")
        if wanted is not None:
            summaries = [summary for summary in summaries if summary["TrainingJobStatus"] == wanted]
        sort_by = request.get("SortBy", "Name")
        if sort_by == "FinalObjectiveMetricValue":
            summaries = [item for item in summaries if "FinalHyperParameterTuningJobObjectiveMetric" in item]
        keys: dict[str, Callable[[Summary], Any]] = {
            "Name": lambda summary: summary["TrainingJobName"],
            "Status": lambda summary: summary["TrainingJobStatus"],
            "CreationTime": lambda summary: summary["CreationTime"],
            "FinalObjectiveMetricValue": trials.objective_value,
        }
        summaries.sort(key=keys[sort_by], reverse=_is_descending(request))
        shown, token = page(summaries, request)
        return {"TrainingJobSummaries": shown, "NextToken": token}

    def _check_training(self, job: Document) -> None:
        """Refuse what every trial would be refused for: AWS would start the trials, and they would fail."""
        for index, definition in enumerate(read_plan(job).definitions):
            record = trials.new_record(job, 1, index, {})
            self._training.check(trials.training_request(job, record, definition))

    def _supervise(self, name: str) -> None:
        supervisor = Supervisor(self._context, self._training, name)
        with self._lock:
            self._supervisors = {key: item for key, item in self._supervisors.items() if item.is_alive()}
            self._supervisors[name] = supervisor
            supervisor.start()

    def _get(self, request: Request, missing: type[ApiError]) -> Document:
        name = request["HyperParameterTuningJobName"]
        job = self._store.get(KIND, name)
        if job is None:
            raise missing(f"Amazon SageMaker can't find a hyperparameter tuning job named {name!r}.")
        return job

    def _summaries(self, job: Document, plan: Plan) -> list[Summary]:
        summaries = (
            trials.summarise(self._store, record, plan.definitions[record["Definition"]])
            for record in job["_trials"]
        )
        return [summary for summary in summaries if summary is not None]

    def _runtime(self, job: Document) -> int:
        return int(job.get("HyperParameterTuningEndTime", self._context.clock()) - job["CreationTime"])

    def _list_item(self, job: Document) -> dict[str, Any]:
        members = (
            "HyperParameterTuningJobName",
            "HyperParameterTuningJobArn",
            "HyperParameterTuningJobStatus",
            "CreationTime",
            "HyperParameterTuningEndTime",
            "LastModifiedTime",
        )
        config = job["HyperParameterTuningJobConfig"]
        return {
            **{member: job[member] for member in members if member in job},
            "Strategy": config["Strategy"],
            "ResourceLimits": config["ResourceLimits"],
            **_counters(self._summaries(job, read_plan(job))),
        }


def new_document(context: Context, request: Request) -> Document:
    """The document of a new tuning job. Raises ValidationError or ResourceLimitExceededError."""
    inherited = inherit(request, read_plan(request), lambda parent: context.store.get(KIND, parent))
    now = context.clock()
    return {
        **{member: request[member] for member in _REQUEST_MEMBERS if member in request},
        "HyperParameterTuningJobArn": context.arn(KIND, request["HyperParameterTuningJobName"]),
        "HyperParameterTuningJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
        "_seed": request["HyperParameterTuningJobConfig"].get("RandomSeed", secrets.randbits(32)),
        "_tags": request.get("Tags", []),
        "_inherited": [asdict(trial) for trial in inherited.trials],
        "_inherited_best": inherited.best,
        "_trials": [],
    }


def _described_definitions(job: Document, plan: Plan) -> dict[str, Any]:
    definitions = [{**item.request, "StaticHyperParameters": item.static} for item in plan.definitions]
    if "TrainingJobDefinition" in job:
        return {"TrainingJobDefinition": definitions[0]}
    return {"TrainingJobDefinitions": definitions}


def _counters(summaries: Sequence[Summary]) -> dict[str, dict[str, int]]:
    return {
        "TrainingJobStatusCounters": trials.status_counters(summaries),
        "ObjectiveStatusCounters": trials.objective_counters(summaries),
    }


def _is_active(job: Document) -> bool:
    return job["HyperParameterTuningJobStatus"] in {"InProgress", "Stopping"}


def _is_descending(request: Request) -> bool:
    return bool(request.get("SortOrder", "Ascending") == "Descending")


def _matches(job: Document, request: Request) -> bool:
    return all(
        (
            request.get("NameContains", "") in job["HyperParameterTuningJobName"],
            request.get("StatusEquals", job["HyperParameterTuningJobStatus"])
            == job["HyperParameterTuningJobStatus"],
            job["CreationTime"] > request.get("CreationTimeAfter", float("-inf")),
            job["CreationTime"] < request.get("CreationTimeBefore", float("inf")),
            job["LastModifiedTime"] > request.get("LastModifiedTimeAfter", float("-inf")),
            job["LastModifiedTime"] < request.get("LastModifiedTimeBefore", float("inf")),
        )
    )


def _name_taken(arn: str) -> ResourceInUseError:
    return ResourceInUseError(
        "Hyperparameter tuning job names must be unique within an AWS account and region, or a tuning job "
        f"with this name already exists ({arn})"
    )
