"""The training job operations of the SageMaker API, and the supervisors of the jobs that run."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping

from local_sagemaker.context import Answer, Operation, Request
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.watch import RuleWatch
from local_sagemaker.errors import ResourceInUseError, ValidationError
from local_sagemaker.jobs.supervisor import ENDED, Services, Supervisors
from local_sagemaker.listing import select
from local_sagemaker.logs import read_journal
from local_sagemaker.store import Document, DocumentExistsError
from local_sagemaker.tags import forget_tags, set_tags
from local_sagemaker.training import container, job_document
from local_sagemaker.training.folders import TrainingFolders
from local_sagemaker.training.job_document import KIND, LOG_GROUP
from local_sagemaker.training.supervisor import TrainingSupervisor
from local_sagemaker.training.validation import check_request, check_rules

logger = logging.getLogger(__name__)

_SUMMARY = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)


class TrainingJobs:
    """Create, describe, stop, list, update and delete training jobs. Safe to call from any thread."""

    def __init__(self, services: Services) -> None:
        self._context = services.context
        self._services = services
        self._supervisors = Supervisors()
        self._lock = threading.Lock()
        self._watches: dict[str, RuleWatch] = {}

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateTrainingJob": lambda request: {"TrainingJobArn": self.create(request)},
            "DescribeTrainingJob": lambda request: self.describe(request["TrainingJobName"]),
            "StopTrainingJob": self._stop,
            "ListTrainingJobs": self._list,
            "UpdateTrainingJob": self._update,
            "DeleteTrainingJob": self._delete,
        }

    def resume(self) -> None:
        """Show the logs of all jobs again, and go on with those that had not ended."""
        for job in self._context.store.list(KIND):
            name = job["TrainingJobName"]
            if job["TrainingJobStatus"] in ENDED:
                folders = self._folders(name)
                folders.discard_data(keep_output=bool(statuses.pending(job)))
                self._watch_rules(name).start()
                self._services.logs.put(LOG_GROUP, job["_LogStream"], list(read_journal(folders.journal)))
            else:
                logger.info("Going on with training job %s (%s)", name, job["SecondaryStatus"])
                self._supervise(name)

    def close(self) -> None:
        """Stop following; the jobs themselves run on."""
        self._supervisors.close()
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.close()

    # -- for other services ------------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raise the ValidationError that `create` would raise for a request; nothing is created."""
        check_request(
            request,
            self._folders(request["TrainingJobName"]),
            self._services.images,
            self._services.objects,
            self._context.settings.region,
        )

    def create(self, request: Request, *, tuning_job_arn: str | None = None) -> str:
        """Create a job, start it and return its ARN. Raises ValidationError or ResourceInUseError."""
        name = request["TrainingJobName"]
        self.check(request)
        arn = self._context.arn(KIND, name)
        job = job_document.new_document(request, arn, self._context.clock(), tuning_job_arn)
        try:
            self._context.store.create(KIND, name, job)
        except DocumentExistsError as error:
            raise ResourceInUseError(
                "Training job names must be unique within an AWS account and region"
            ) from error
        set_tags(self._context, arn, request.get("Tags"))
        self._supervise(name)
        return arn

    def describe(self, name: str) -> Answer:
        """The DescribeTrainingJob answer, with the runtime's own members. Raises ValidationError."""
        job = self._context.store.get(KIND, name)
        if job is None:
            raise ValidationError("Requested resource not found.")
        return job

    def stop(self, name: str) -> None:
        """Ask a job to stop; one that is stopping already is left at it. Raises ValidationError."""
        self.describe(name)
        now = self._context.clock()

        def change(job: Document) -> None:
            if job["TrainingJobStatus"] in ENDED:
                raise ValidationError(
                    f"The request was rejected because the training job is in status "
                    f"{job['TrainingJobStatus']}."
                )
            if job["TrainingJobStatus"] != "Stopping":
                job_document.request_stop(job, now)

        self._context.store.update(KIND, name, change)
        self._supervisors.wake(name)

    # -- operations --------------------------------------------------------------------------------------

    def _stop(self, request: Request) -> Answer:
        self.stop(request["TrainingJobName"])
        return {}

    def _list(self, request: Request) -> Answer:
        jobs, token = select(
            self._context.store.list(KIND), request, name="TrainingJobName", status="TrainingJobStatus"
        )
        summaries = [{member: job[member] for member in _SUMMARY if member in job} for job in jobs]
        answer: Answer = {"TrainingJobSummaries": summaries}
        if token is not None:
            answer["NextToken"] = token
        return answer

    def _update(self, request: Request) -> Answer:
        """Change the profiler of a running job, whose configuration smdebug reads again while it runs, and
        add rules.
        """
        name = request["TrainingJobName"]
        self.describe(name)
        now = self._context.clock()

        def change(job: Document) -> None:
            if job["TrainingJobStatus"] != "InProgress":
                raise ValidationError(
                    f"The request was rejected because the training job is in status "
                    f"{job['TrainingJobStatus']}; only a job in progress can be updated"
                )
            job_document.update(job, request, now)
            check_rules(job, self._services.images)

        with self._lock:
            watch = self._watches.get(name)
        job = self._context.store.update(KIND, name, change)
        if watch is not None:
            watch.rules_added()
        folders = self._folders(name)
        if folders.config.is_dir():
            container.write_config(job, folders)
        return {"TrainingJobArn": job["TrainingJobArn"]}

    def _delete(self, request: Request) -> Answer:
        """Forget an ended job; its objects in S3 and its log stay, its name can be used again."""
        name = request["TrainingJobName"]
        job = self.describe(name)
        if job["TrainingJobStatus"] not in ENDED:
            raise ResourceInUseError(
                f"The training job {name} is in status {job['TrainingJobStatus']}; stop it before deleting it"
            )
        with self._lock:
            watch = self._watches.pop(name, None)
        if watch is not None:
            watch.discard()
        self._folders(name).remove()
        self._context.store.delete_metrics(name)
        self._context.store.delete(KIND, name)
        forget_tags(self._context, job["TrainingJobArn"])
        return {}

    # -- supervisors -------------------------------------------------------------------------------------

    def _folders(self, name: str) -> TrainingFolders:
        return TrainingFolders(self._context.folder(KIND, name))

    def _supervise(self, name: str) -> None:
        self._supervisors.start(name, TrainingSupervisor(name, self._services, self._watch_rules(name)))

    def _watch_rules(self, name: str) -> RuleWatch:
        watch = RuleWatch(name, self._services, stop_training=lambda: self._stop_for_rule(name))
        with self._lock:
            self._watches = {other: one for other, one in self._watches.items() if not one.ended}
            self._watches[name] = watch
        return watch

    def _stop_for_rule(self, name: str) -> None:
        """The built-in action StopTraining; a job that ends anyway is left to it."""
        with contextlib.suppress(ValidationError):
            self.stop(name)
