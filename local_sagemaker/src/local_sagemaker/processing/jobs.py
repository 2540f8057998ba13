"""The processing job operations of the SageMaker API, and the supervisors of the jobs that run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from local_sagemaker.context import Answer, Operation, Request
from local_sagemaker.errors import ResourceInUseError, ValidationError
from local_sagemaker.jobs.supervisor import ENDED, Services, Supervisors
from local_sagemaker.listing import select
from local_sagemaker.logs import read_journal
from local_sagemaker.processing import job_document
from local_sagemaker.processing.folders import ProcessingFolders
from local_sagemaker.processing.job_document import KIND, LOG_GROUP
from local_sagemaker.processing.supervisor import ProcessingSupervisor
from local_sagemaker.processing.validation import check_request
from local_sagemaker.store import Document, DocumentExistsError
from local_sagemaker.tags import forget_tags, set_tags

logger = logging.getLogger(__name__)

_SUMMARY = (
    "ProcessingJobName",
    "ProcessingJobArn",
    "CreationTime",
    "ProcessingEndTime",
    "LastModifiedTime",
    "ProcessingJobStatus",
    "FailureReason",
    "ExitMessage",
)


class ProcessingJobs:
    """Create, describe, stop, list and delete processing jobs. Safe to call from any thread."""

    def __init__(self, services: Services) -> None:
        self._context = services.context
        self._services = services
        self._supervisors = Supervisors()

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateProcessingJob": self.create,
            "DescribeProcessingJob": self.describe,
            "StopProcessingJob": self.stop,
            "ListProcessingJobs": self.list,
            "DeleteProcessingJob": self.delete,
        }

    def resume(self) -> None:
        """Show the logs of all jobs again, and go on with those that had not ended."""
        for job in self._context.store.list(KIND):
            name = job["ProcessingJobName"]
            if job["ProcessingJobStatus"] in ENDED:
                folders = self._folders(name)
                folders.discard_data()
                self._services.logs.put(LOG_GROUP, job["_LogStream"], list(read_journal(folders.journal)))
            else:
                logger.info("Going on with processing job %s (%s)", name, job["ProcessingJobStatus"])
                self._supervise(name)

    def close(self) -> None:
        """Stop following; the jobs themselves run on."""
        self._supervisors.close()

    def create(self, request: Request) -> Answer:
        name = request["ProcessingJobName"]
        check_request(
            request,
            self._folders(name),
            self._services.images,
            self._services.objects,
            self._context.settings.region,
        )
        arn = self._context.arn(KIND, name)
        try:
            self._context.store.create(
                KIND, name, job_document.new_document(request, arn, self._context.clock())
            )
        except DocumentExistsError as error:
            raise ResourceInUseError(
                "Job name must be unique within an AWS account and region, and a job with this name already "
                f"exists ({arn})"
            ) from error
        set_tags(self._context, arn, request.get("Tags"))
        self._supervise(name)
        return {"ProcessingJobArn": arn}

    def describe(self, request: Request) -> Answer:
        return self._find(request["ProcessingJobName"])

    def stop(self, request: Request) -> Answer:
        """Ask a job to stop; one that is stopping already is left at it."""
        name = request["ProcessingJobName"]
        self._find(name)
        now = self._context.clock()

        def change(job: Document) -> None:
            if job["ProcessingJobStatus"] in ENDED:
                raise ValidationError(
                    "The request was rejected because the processing job is in status "
                    f"{job['ProcessingJobStatus']}."
                )
            if job["ProcessingJobStatus"] != "Stopping":
                job_document.request_stop(job, now)

        self._context.store.update(KIND, name, change)
        self._supervisors.wake(name)
        return {}

    def list(self, request: Request) -> Answer:
        jobs, token = select(
            self._context.store.list(KIND), request, name="ProcessingJobName", status="ProcessingJobStatus"
        )
        summaries = [{member: job[member] for member in _SUMMARY if member in job} for job in jobs]
        return {"ProcessingJobSummaries": summaries, "NextToken": token}

    def delete(self, request: Request) -> Answer:
        """Forget an ended job; its objects in S3 and its log stay, its name can be used again."""
        name = request["ProcessingJobName"]
        job = self._find(name)
        if job["ProcessingJobStatus"] not in ENDED:
            raise ResourceInUseError(
                f"The processing job {name} is in status {job['ProcessingJobStatus']}; stop it before "
                "deleting it"
            )
        self._folders(name).remove()
        self._context.store.delete(KIND, name)
        forget_tags(self._context, job["ProcessingJobArn"])
        return {}

    def _find(self, name: str) -> Document:
        """The job's document. Raises ValidationError, which Airflow's operator takes for a free name."""
        job = self._context.store.get(KIND, name)
        if job is None:
            raise ValidationError(f"Could not find requested job with name: {name}")
        return job

    def _folders(self, name: str) -> ProcessingFolders:
        return ProcessingFolders(self._context.folder(KIND, name))

    def _supervise(self, name: str) -> None:
        self._supervisors.start(name, ProcessingSupervisor(name, self._services))
