"""Takes one processing job from its inputs to its outputs in S3."""

from __future__ import annotations

import logging
from pathlib import Path

from local_sagemaker import processes
from local_sagemaker.channels import ChannelError, provide
from local_sagemaker.image_environments import overlay
from local_sagemaker.jobs.artifacts import FolderSync
from local_sagemaker.jobs.failures import JobFailedError
from local_sagemaker.jobs.ignored import log_ignored
from local_sagemaker.jobs.supervisor import Services, Supervisor
from local_sagemaker.processes import ProcessGroup
from local_sagemaker.processing import container, job_document
from local_sagemaker.processing.folders import ProcessingFolders
from local_sagemaker.processing.job_document import PROCESSING_JOB
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError
from local_sagemaker.store import Document

logger = logging.getLogger(__name__)

_MESSAGE_BYTES = 1024  # "Save and Access Metadata Information About Your Processing Job" (developer guide)


class ProcessingSupervisor(Supervisor):
    """Takes one processing job from its present state to its end."""

    def __init__(self, name: str, services: Services) -> None:
        self._folders = ProcessingFolders(services.context.folder(PROCESSING_JOB.resource_type, name))
        super().__init__(PROCESSING_JOB, name, services, self._folders)
        self._asked = False

    def _launch(self) -> ProcessGroup | None:
        now = self._context.clock()
        job = self._change(lambda document: job_document.begin(document, now))
        self._folders.create()
        log_ignored(self._folders.log, job)
        container.write_config(job, self._folders)
        image = self._services.images.resolve(job["AppSpecification"]["ImageUri"])
        environment = overlay(image, self._folders.environment)
        inputs = job_document.platform_inputs(job)
        for item in sorted(inputs, key=lambda item: len(self._input_folder(item).parts)):  # outer ones first
            if self._stopping():
                return None
            self._download(item)
        for item in job_document.platform_outputs(job):
            self._folders.data(item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        if self._stopping():
            return None
        return processes.start(
            self._folders.process,
            container.command(job, self._folders, environment),
            environment=container.environment_variables(
                job, self._folders, image, environment, self._context.settings
            ),
            cwd=self._folders.base,
            log=self._folders.log,
        )

    def _download(self, item: Document) -> None:
        name = item["InputName"]
        try:
            count = provide(
                job_document.channel(item),
                self._input_folder(item),
                self._services.objects,
                self._services.cache,
            )
        except (ChannelError, BucketMissingError, ObjectMissingError) as error:
            raise JobFailedError(f"Data download failed: input {name!r}: {error}") from error
        logger.info("%s: input %s has %d files", self._name, name, count)

    def _input_folder(self, item: Document) -> Path:
        return self._folders.data(item["S3Input"]["LocalPath"])

    def _syncs(self) -> list[FolderSync]:
        return self._outputs("Continuous")

    def _outputs(self, mode: str) -> list[FolderSync]:
        return [
            FolderSync(
                self._folders.data(item["S3Output"]["LocalPath"]),
                item["S3Output"]["S3Uri"],
                self._services.objects,
            )
            for item in job_document.platform_outputs(self._job())
            if item["S3Output"]["S3UploadMode"] == mode
        ]

    def _ask_to_end(self, group: ProcessGroup) -> None:
        """Send SIGTERM to the entry point once, as to a container."""
        if not self._asked:
            self._asked = True
            group.terminate()

    def _time_out(self, job: Document, now: float) -> None:
        limit = job["StoppingCondition"]["MaxRuntimeInSeconds"]
        job_document.request_stop(
            job, now, f"ClientError: The job was stopped after its MaxRuntimeInSeconds of {limit}"
        )

    def _upload(self, syncs: list[FolderSync], *, succeeded: bool) -> None:
        """Upload Continuous outputs however the job ends, and EndOfJob outputs if it has completed."""
        complete = succeeded and not self._stopping()
        for sync in [*syncs, *(self._outputs("EndOfJob") if complete else [])]:
            sync.sync(final=True)
        self._keep_message()

    def _keep_message(self) -> None:
        """Store the exit message. Raises JobFailedError for one that is not UTF-8."""
        path = self._folders.message
        if not path.is_file():
            return
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise JobFailedError(f"The exit message /opt/ml/output/message is not UTF-8: {error}") from error
        short = text.encode()[:_MESSAGE_BYTES].decode(errors="ignore")
        self._change(lambda document: document.update(ExitMessage=short))

    def _conclude(self, reason: str | None, now: float) -> None:
        self._change(lambda document: job_document.finish(document, now, reason))
        self._folders.discard_data()
