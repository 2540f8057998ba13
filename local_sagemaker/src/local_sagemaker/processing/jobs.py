"""The processing job operations of the SageMaker API."""

from __future__ import annotations

from local_sagemaker.context import Request, Response
from local_sagemaker.jobs.service import Jobs
from local_sagemaker.jobs.supervisor import Services
from local_sagemaker.processing import job_document
from local_sagemaker.processing.folders import ProcessingFolders
from local_sagemaker.processing.job_document import PROCESSING_JOB
from local_sagemaker.processing.supervisor import ProcessingSupervisor
from local_sagemaker.processing.validation import check_request
from local_sagemaker.store import Document


class ProcessingJobs(Jobs):
    """Create, describe, stop, list and delete processing jobs."""

    def __init__(self, services: Services) -> None:
        super().__init__(PROCESSING_JOB, services)

    def create(self, request: Request) -> Response:
        """Raises ValidationError or ResourceInUseError."""
        name = request["ProcessingJobName"]
        services = self._services
        check_request(
            request,
            self._folders(name),
            services.images,
            services.objects,
            self._context.settings.region,
        )
        response = self.add(
            name, job_document.new_document(request, self._context.clock()), request.get("Tags")
        )
        self._supervise(name)
        return response

    def _supervisor(self, name: str) -> ProcessingSupervisor:
        return ProcessingSupervisor(name, self._services)

    def _folders(self, name: str) -> ProcessingFolders:
        return ProcessingFolders(self._context.folder(PROCESSING_JOB.resource_type, name))

    def _request_stop(self, job: Document, now: float) -> None:
        job_document.request_stop(job, now)

    def _resume_ended(self, job: Document) -> None:
        self._folders(job["ProcessingJobName"]).discard_data()
