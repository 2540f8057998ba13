"""The operations that training and processing jobs share, and the supervisors of running jobs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from local_sagemaker.context import Request, Response
from local_sagemaker.errors import ResourceInUseError, ValidationError
from local_sagemaker.jobs.folders import JobFolders
from local_sagemaker.jobs.supervisor import ENDED, JobKind, Services, Supervisor, Supervisors
from local_sagemaker.logs import read_journal
from local_sagemaker.resources import Resources
from local_sagemaker.store import Document

logger = logging.getLogger(__name__)


class Jobs(Resources, ABC):
    """Jobs of one kind. Safe to call from any thread."""

    def __init__(self, kind: JobKind, services: Services) -> None:
        super().__init__(kind, services.context)
        self._job_kind = kind
        self._services = services
        self._supervisors = Supervisors()

    def resume(self) -> None:
        """Fill CloudWatch Logs with the logs of all jobs, and resume those that had not ended."""
        kind = self._job_kind
        for job in self._context.store.list(kind.resource_type):
            name = job[kind.name]
            if job[kind.status] in ENDED:
                self._resume_ended(job)
                journal = self._folders(name).journal
                self._services.logs.put(kind.log_group, job["_LogStream"], list(read_journal(journal)))
            else:
                logger.info("Resuming %s %s (%s)", kind.title, name, job[kind.status])
                self._supervise(name)

    def close(self) -> None:
        """Stop following; the jobs themselves run on."""
        self._supervisors.close()

    def stop(self, request: Request) -> Response:
        self.stop_job(request[self._kind.name])
        return {}

    def stop_job(self, name: str) -> None:
        """Ask a job to stop; nothing happens if it is stopping already. Raises ValidationError."""
        kind, now = self._job_kind, self._context.clock()

        def change(job: Document) -> None:
            if job[kind.status] in ENDED:
                raise ValidationError(
                    f"The request was rejected because the {kind.title} is in status {job[kind.status]}."
                )
            if job[kind.status] != "Stopping":
                self._request_stop(job, now)

        self.change(name, change)
        self._supervisors.wake(name)

    def delete(self, request: Request) -> Response:
        """Delete an ended job. Its objects in S3 and its log stay; its name can be used again."""
        kind = self._job_kind
        job = self.find(request[kind.name])
        if job[kind.status] not in ENDED:
            raise ResourceInUseError(
                f"The {kind.title} {job[kind.name]} is in status {job[kind.status]}; "
                "stop it before deleting it"
            )
        self._discard(job[kind.name])
        self.remove(job)
        return {}

    def _supervise(self, name: str) -> None:
        self._supervisors.start(name, self._supervisor(name))

    def _discard(self, name: str) -> None:
        """Delete what belongs to a job besides its document."""
        self._folders(name).remove()

    @abstractmethod
    def _supervisor(self, name: str) -> Supervisor:
        """A supervisor for a job that has not ended."""

    @abstractmethod
    def _folders(self, name: str) -> JobFolders:
        """The job's folders."""

    @abstractmethod
    def _request_stop(self, job: Document, now: float) -> None:
        """Set a running job's document to stopping; `now` in epoch seconds."""

    @abstractmethod
    def _resume_ended(self, job: Document) -> None:
        """After a restart: complete the clean-up of an ended job."""
