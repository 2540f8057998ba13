"""Takes one tuning job from its first trial to its end, in rounds: collect, decide, launch.

All persistent state is in the tuning job's document. A trial is recorded there before its training job is
created, under a name derived from its number, so that a restarted runtime neither loses nor repeats a trial.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from local_sagemaker.context import Context
from local_sagemaker.errors import ApiError, ResourceInUseError
from local_sagemaker.resources import ResourceKind
from local_sagemaker.store import Document
from local_sagemaker.tuning import trials
from local_sagemaker.tuning.plans import Definition, Plan, read_plan
from local_sagemaker.tuning.ranges import combinations
from local_sagemaker.tuning.search import Trial, propose
from local_sagemaker.tuning.stopping import Hyperband, MedianRule, NeverStop, StoppingRule
from local_sagemaker.tuning.trials import Record, Summary

logger = logging.getLogger(__name__)

TUNING_JOB = ResourceKind(
    resource_type="hyper-parameter-tuning-job",
    prefix="HyperParameterTuningJob",
    listed_as="HyperParameterTuningJobSummaries",
    summary=(
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobArn",
        "HyperParameterTuningJobStatus",
        "CreationTime",
        "HyperParameterTuningEndTime",
        "LastModifiedTime",
    ),
    taken=(
        "Hyperparameter tuning job names must be unique within an AWS account and region, or a tuning job "
        "with this name already exists ({arn})"
    ),
    missing="Amazon SageMaker can't find a hyperparameter tuning job named {name!r}.",
    taken_error=ResourceInUseError,
    sort_by="Name",
    sort_order="Ascending",
)

_HOPELESS_AFTER = 5  # trials, none successful, as on AWS ("No training job succeeded after 5 attempts")


class TrainingJobs(Protocol):
    """The part of the training jobs' service that tuning needs."""

    def check(self, request: dict[str, Any]) -> None: ...

    def create(self, request: dict[str, Any], *, tuning_job_arn: str | None = None) -> object: ...

    def stop_job(self, name: str) -> None: ...


class Ending(StrEnum):
    """Why a tuning job starts no more trials and stops the running ones; stored as `_ending`."""

    REQUESTED = "requested"
    MAX_RUNTIME = "max-runtime"
    CRITERION = "criterion"


class TuningJob:
    """One tuning job's state machine; `advance` is one round of it."""

    def __init__(self, context: Context, training: TrainingJobs, name: str) -> None:
        self._context = context
        self._store = context.store
        self._training = training
        self._name = name
        job = self._load()
        self._plan = read_plan(job)
        self._inherited = [Trial(**item) for item in job["_inherited"]]
        self._rules = [_rule(self._plan, name, index) for index in range(len(self._plan.definitions))]

    def adopt(self) -> None:
        """Resume after a restart; a trial that was only recorded gets its training job."""
        job = self._load()
        for record in job["_trials"]:
            if "Summary" in record:
                self._rules[record["Definition"]].finished(record["Number"], self._reports(record))
            elif self._summary(record) is None:
                if "_ending" in job:
                    self._freeze(
                        record, self._never_created(record, "Stopped", "The tuning job was stopped.")
                    )
                else:
                    self._create(job, record)

    def advance(self) -> bool:
        """Collect, decide, launch; True once the tuning job has ended."""
        job = self._collect(self._load())
        ending = self._ending(job)
        running = [record for record in job["_trials"] if "Summary" not in record]
        for record in running:
            self._follow(record, ending)
        if ending is None and not self._is_hopeless(job):
            self._launch(job, len(running))
            if self._is_open(job):
                return False
        return self._end_if_idle()

    # -- results of the trials -------------------------------------------------------------------------------

    def _collect(self, job: Document) -> Document:
        for record in job["_trials"]:
            if "Summary" in record:
                continue
            summary = self._summary(record)
            if summary is not None and trials.has_ended(summary):
                values = self._reports(record)
                self._rules[record["Definition"]].finished(record["Number"], values)
                job = self._freeze(record, summary, len(values))
        return job

    def _freeze(self, record: Record, summary: Summary, count: int = 0) -> Document:
        logger.info(
            "Tuning job %s: trial %d %s, objective %s",
            self._name,
            record["Number"],
            summary["TrainingJobStatus"],
            summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value"),
        )

        def change(job: Document) -> None:
            job["_trials"][record["Number"] - 1].update(Summary=summary, Reports=count)
            job["LastModifiedTime"] = self._context.clock()

        return self._store.update(TUNING_JOB.resource_type, self._name, change)

    def _follow(self, record: Record, ending: Ending | None) -> None:
        """Stop a running trial if the tuning job ends or the stopping rule says so."""
        rule = self._rules[record["Definition"]]
        summary = self._summary(record)
        if summary is None or summary["TrainingJobStatus"] != "InProgress":
            return
        if rule.follow(record["Number"], self._reports(record)) or ending is not None:
            try:
                self._training.stop_job(record["TrainingJobName"])
            except ApiError as error:  # it ended in the meantime
                logger.info(
                    "Tuning job %s: could not stop %s: %s", self._name, record["TrainingJobName"], error
                )

    # -- whether to continue ---------------------------------------------------------------------------------

    def _ending(self, job: Document) -> Ending | None:
        if "_ending" in job:
            return Ending(job["_ending"])
        plan = self._plan
        ending = None
        if plan.max_runtime is not None and self._context.clock() >= job["CreationTime"] + plan.max_runtime:
            ending = Ending.MAX_RUNTIME
        elif self._meets_criterion(job):
            ending = Ending.CRITERION
        if ending is not None:
            logger.info("Tuning job %s ends: %s", self._name, ending.value)
            self._store.update(TUNING_JOB.resource_type, self._name, _with_ending(ending))
        return ending

    def _meets_criterion(self, job: Document) -> bool:
        plan, summaries = self._plan, _finished(job)
        if plan.target is not None:
            best = trials.best(summaries, maximize=plan.maximize)
            if best is not None:
                value = trials.objective_value(best)
                if value >= plan.target if plan.maximize else value <= plan.target:
                    return True
        limit = plan.max_not_improving
        return limit is not None and trials.not_improving(summaries, maximize=plan.maximize) >= limit

    def _is_hopeless(self, job: Document) -> bool:
        summaries = _finished(job)
        return len(summaries) >= _HOPELESS_AFTER and not any(map(trials.succeeded, summaries))

    def _is_open(self, job: Document) -> bool:
        return len(job["_trials"]) < self._plan.max_jobs

    # -- the next trials -------------------------------------------------------------------------------------

    def _launch(self, job: Document, running: int) -> None:
        while running < self._plan.max_parallel and self._is_open(job):
            record = self._next_record(job)
            job = self._store.update(TUNING_JOB.resource_type, self._name, _with_trial(record))
            self._rules[record["Definition"]].follow(record["Number"], [])
            self._create(job, record)
            running += 1

    def _next_record(self, job: Document) -> Record:
        number = len(job["_trials"]) + 1
        index = _definition_index(self._plan, job)
        definition = self._plan.definitions[index]
        own = [
            trials.seen_by_optimiser(record, definition)
            for record in job["_trials"]
            if record["Definition"] == index
        ]
        values = propose(
            definition.space,
            self._plan.strategy,
            maximize=self._plan.maximize,
            seed=job["_seed"],
            number=number,
            trials=own,
            inherited=self._inherited,
        )
        return trials.new_record(job, number, index, values)

    def _create(self, job: Document, record: Record) -> None:
        request = trials.training_request(job, record, self._definition(record))
        try:
            self._training.create(request, tuning_job_arn=job["HyperParameterTuningJobArn"])
        except ResourceInUseError:
            logger.info("Tuning job %s: %s already exists", self._name, record["TrainingJobName"])
        except (ApiError, OSError) as error:
            self._freeze(record, self._never_created(record, "Failed", f"ClientError: {error}"))

    def _never_created(self, record: Record, status: str, reason: str) -> Summary:
        arn = self._context.arn(trials.TRAINING_KIND, record["TrainingJobName"])
        return trials.never_created(arn, record, self._context.clock(), status, reason)

    # -- the end ---------------------------------------------------------------------------------------------

    def _end_if_idle(self) -> bool:
        if any("Summary" not in record for record in self._load()["_trials"]):
            return False

        def change(document: Document) -> None:
            status, reason = _outcome(document)
            now = self._context.clock()
            document.update(
                HyperParameterTuningJobStatus=status, HyperParameterTuningEndTime=now, LastModifiedTime=now
            )
            if reason is not None:
                document["FailureReason"] = reason

        job = self._store.update(TUNING_JOB.resource_type, self._name, change)
        logger.info("Tuning job %s: %s", self._name, job["HyperParameterTuningJobStatus"])
        return True

    # -- reading ---------------------------------------------------------------------------------------------

    def _load(self) -> Document:
        job = self._store.get(TUNING_JOB.resource_type, self._name)
        if job is None:
            raise LookupError(f"the tuning job {self._name!r} is not in the store")
        return job

    def _definition(self, record: Record) -> Definition:
        return self._plan.definitions[record["Definition"]]

    def _reports(self, record: Record) -> list[float]:
        return trials.reports(self._store, record, self._definition(record).objective)

    def _summary(self, record: Record) -> Summary | None:
        return trials.summarise(self._store, record, self._definition(record))


def _finished(job: Document) -> list[Summary]:
    return [record["Summary"] for record in job["_trials"] if "Summary" in record]


def _definition_index(plan: Plan, job: Document) -> int:
    """Definitions take turns; one with an exhausted search space is skipped."""
    used = [record["Definition"] for record in job["_trials"]]
    open_ones = [
        index
        for index, definition in enumerate(plan.definitions)
        if used.count(index) < combinations(definition.space)
    ]
    return min(open_ones, key=used.count)


def _rule(plan: Plan, job: str, index: int) -> StoppingRule:
    if plan.resources is not None:
        return Hyperband(
            f"{job}-{index}",
            maximize=plan.maximize,
            min_resource=plan.resources.minimum,
            max_resource=plan.resources.maximum,
        )
    return MedianRule(maximize=plan.maximize) if plan.stops_early else NeverStop()


def _with_trial(record: Record) -> Callable[[Document], None]:
    def change(job: Document) -> None:
        job["_trials"].append(record)

    return change


def _with_ending(ending: Ending) -> Callable[[Document], None]:
    def change(job: Document) -> None:
        job.setdefault("_ending", ending.value)
        if ending is Ending.MAX_RUNTIME:
            job["HyperParameterTuningJobStatus"] = "Stopping"

    return change


def _outcome(job: Document) -> tuple[str, str | None]:
    """Status and failure reason of a tuning job whose trials have all ended; the messages are AWS's.

    A tuning job that exceeded MaxRuntimeInSeconds is Stopped, one that met a completion criterion Completed;
    AWS does not document either.
    """
    if job.get("_ending") in {Ending.REQUESTED, Ending.MAX_RUNTIME}:
        return "Stopped", None
    summaries = _finished(job)
    if any(map(trials.succeeded, summaries)):
        return "Completed", None
    if any(summary["TrainingJobStatus"] != "Failed" for summary in summaries):
        return "Failed", (
            f"No objective metrics found after running {len(summaries)} training jobs. Please ensure that "
            "the custom algorithm is emitting the objective metric as defined by the regular expression "
            "provided."
        )
    return "Failed", (
        f"No training job succeeded after {len(summaries)} attempts. Please take a look at the training job "
        "failures to get more details."
    )
