"""The operations on hyperparameter tuning jobs."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ResourceNotFoundError, ValidationError
from local_sagemaker.listing import page
from local_sagemaker.resources import Resources
from local_sagemaker.store import Document
from local_sagemaker.tuning import trials
from local_sagemaker.tuning.plans import Plan, read_plan
from local_sagemaker.tuning.progress import TUNING_JOB, Ending, TrainingJobs
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


class TuningJobs(Resources):
    """The operations, and a supervisor for each tuning job that runs. Safe to call from any thread."""

    def __init__(self, context: Context, training_jobs: TrainingJobs) -> None:
        super().__init__(TUNING_JOB, context)
        self._store = context.store
        self._training = training_jobs
        self._supervisors: dict[str, Supervisor] = {}
        self._lock = threading.Lock()

    def resume(self) -> None:
        for job in self._store.list(TUNING_JOB.resource_type):
            if _is_active(job):
                self._supervise(job["HyperParameterTuningJobName"])

    def close(self) -> None:
        with self._lock:
            supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.close()

    def create(self, request: Request) -> Response:
        name = request["HyperParameterTuningJobName"]
        if self._store.get(TUNING_JOB.resource_type, name) is not None:
            raise self._taken(name)
        job = new_document(self._context, request)
        self._check_training(job)
        response = self.add(name, job, request.get("Tags"))
        self._supervise(name)
        return response

    def describe(self, request: Request) -> Response:
        job = self.find(request["HyperParameterTuningJobName"])
        plan = read_plan(job)
        summaries = self._summaries(job, plan)
        response: Response = {
            **job,
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
            response["BestTrainingJob"] = best
        if job.get("WarmStartConfig", {}).get("WarmStartType") == "IdenticalDataAndAlgorithm":
            candidates = [item for item in (job["_inherited_best"], best) if item is not None]
            response["OverallBestTrainingJob"] = trials.best(candidates, maximize=plan.maximize)
        return response

    def stop(self, request: Request) -> Response:
        name = request["HyperParameterTuningJobName"]
        self.find(name, ResourceNotFoundError)

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

        self.change(name, change)
        with self._lock:
            supervisor = self._supervisors.get(name)
        if supervisor is not None:
            supervisor.wake()
        return {}

    def delete(self, request: Request) -> Response:
        """Delete a tuning job that has ended; its training jobs stay."""
        job = self.find(request["HyperParameterTuningJobName"], ResourceNotFoundError)
        if _is_active(job):
            raise ValidationError(
                f"The tuning job is {job['HyperParameterTuningJobStatus']}; stop it and wait before it is "
                "deleted."
            )
        self.remove(job)
        return {}

    def list_training_jobs(self, request: Request) -> Response:
        job = self.find(request["HyperParameterTuningJobName"])
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
        summaries.sort(key=keys[sort_by], reverse=request.get("SortOrder", "Ascending") == "Descending")
        shown, token = page(summaries, request)
        return {"TrainingJobSummaries": shown, "NextToken": token}

    def _check_training(self, job: Document) -> None:
        """Raises the error that every trial would raise. AWS would start the trials and let them fail."""
        for index, definition in enumerate(read_plan(job).definitions):
            record = trials.new_record(job, 1, index, {})
            self._training.check(trials.training_request(job, record, definition))

    def _supervise(self, name: str) -> None:
        supervisor = Supervisor(self._context, self._training, name)
        with self._lock:
            self._supervisors = {key: item for key, item in self._supervisors.items() if item.is_alive()}
            self._supervisors[name] = supervisor
            supervisor.start()

    def _summaries(self, job: Document, plan: Plan) -> list[Summary]:
        summaries = (
            trials.summarise(self._store, record, plan.definitions[record["Definition"]])
            for record in job["_trials"]
        )
        return [summary for summary in summaries if summary is not None]

    def _runtime(self, job: Document) -> int:
        return int(job.get("HyperParameterTuningEndTime", self._context.clock()) - job["CreationTime"])

    def _summary(self, document: Document) -> Document:
        config = document["HyperParameterTuningJobConfig"]
        return {
            **super()._summary(document),
            "Strategy": config["Strategy"],
            "ResourceLimits": config["ResourceLimits"],
            **_counters(self._summaries(document, read_plan(document))),
        }


def new_document(context: Context, request: Request) -> Document:
    """The document of a new tuning job. Raises ValidationError or ResourceLimitExceededError."""
    kind, store = TUNING_JOB.resource_type, context.store
    inherited = inherit(request, read_plan(request), lambda parent: store.get(kind, parent))
    now = context.clock()
    return {
        **{member: request[member] for member in _REQUEST_MEMBERS if member in request},
        "HyperParameterTuningJobArn": context.arn(kind, request["HyperParameterTuningJobName"]),
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
