"""The training job operations of the SageMaker API."""

from __future__ import annotations

import contextlib
import threading

from local_sagemaker.context import Request, Response
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.watch import RuleWatch, WatchedJob
from local_sagemaker.errors import ValidationError
from local_sagemaker.jobs.service import Jobs
from local_sagemaker.jobs.supervisor import Services
from local_sagemaker.store import Document
from local_sagemaker.training import container, job_document
from local_sagemaker.training.folders import TrainingFolders
from local_sagemaker.training.job_document import TRAINING_JOB, output_uri
from local_sagemaker.training.supervisor import TrainingSupervisor
from local_sagemaker.training.validation import check_request, check_rules


class TrainingJobs(Jobs):
    """Create, describe, stop, list, update and delete training jobs."""

    def __init__(self, services: Services) -> None:
        super().__init__(TRAINING_JOB, services)
        self._lock = threading.Lock()
        self._watches: dict[str, RuleWatch] = {}

    def close(self) -> None:
        super().close()
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            watch.close()

    def check(self, request: Request) -> None:
        """Raise the ValidationError that `create` would raise for a request; nothing is created."""
        check_request(
            request,
            self._folders(request["TrainingJobName"]),
            self._services.images,
            self._services.objects,
            self._context.settings.region,
        )

    def create(self, request: Request, *, tuning_job_arn: str | None = None) -> Response:
        """Raises ValidationError or ResourceInUseError."""
        name = request["TrainingJobName"]
        self.check(request)
        job = job_document.new_document(request, self.arn(name), self._context.clock(), tuning_job_arn)
        response = self.add(name, job, request.get("Tags"))
        self._supervise(name)
        return response

    def update(self, request: Request) -> Response:
        """Change the profiler of a running job, and add rules.

        smdebug reads the profiler's configuration again while it runs.
        """
        name = request["TrainingJobName"]
        now = self._context.clock()
        with self._lock:
            watch = self._watches.get(name)

        def change(job: Document) -> None:
            if job["TrainingJobStatus"] != "InProgress":
                raise ValidationError(
                    f"The request was rejected because the training job is in status "
                    f"{job['TrainingJobStatus']}; only a job in progress can be updated"
                )
            job_document.update(job, request, now)
            check_rules(job, self._services.images)
            if watch is not None:
                watch.observe(self._watched(job))

        job = self.change(name, change)
        if watch is not None:
            watch.rules_added()
        folders = self._folders(name)
        if folders.config.is_dir():
            container.write_config(job, folders)
        return {"TrainingJobArn": job["TrainingJobArn"]}

    def _discard(self, name: str) -> None:
        with self._lock:
            watch = self._watches.pop(name, None)
        if watch is not None:
            watch.discard()
        self._context.store.delete_metrics(name)
        super()._discard(name)

    def _supervisor(self, name: str) -> TrainingSupervisor:
        return TrainingSupervisor(name, self._services, self._watch_rules(self.find(name)))

    def _folders(self, name: str) -> TrainingFolders:
        return TrainingFolders(self._context.folder(TRAINING_JOB.resource_type, name))

    def _request_stop(self, job: Document, now: float) -> None:
        job_document.request_stop(job, now)

    def _resume_ended(self, job: Document) -> None:
        self._folders(job["TrainingJobName"]).discard_data(keep_output=bool(statuses.pending(job)))
        self._watch_rules(job).start()

    def _watch_rules(self, job: Document) -> RuleWatch:
        name = job["TrainingJobName"]
        watch = RuleWatch(
            self._watched(job),
            self._services,
            stop_training=lambda: self._stop_for_rule(name),
            rules_ended=self._folders(name).discard_data,
        )
        with self._lock:
            self._watches = {other: one for other, one in self._watches.items() if not one.ended}
            self._watches[name] = watch
        return watch

    def _watched(self, job: Document) -> WatchedJob:
        folders = self._folders(job["TrainingJobName"])
        return WatchedJob(
            kind=TRAINING_JOB.resource_type,
            name=job["TrainingJobName"],
            rules=folders.rules,
            tensors=container.tensors_folder(job, folders) if "DebugHookConfig" in job else None,
            profile=container.profiler_folder(job, folders) if statuses.profiles(job) else None,
            output_uri=output_uri(job, "rule-output"),
        )

    def _stop_for_rule(self, name: str) -> None:
        """The built-in action StopTraining; does nothing for a job that is ending."""
        with contextlib.suppress(ValidationError):
            self.stop_job(name)
