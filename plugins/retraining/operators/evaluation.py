"""The provider's processing operator, made safe to retry as the others in `adopting.py`.

Import inside a task only: the provider's operators load boto3.
"""

from __future__ import annotations

import time
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator
from airflow.sdk import Context

from retraining.jobs.logs import PROCESSING_JOBS, LogTail
from retraining.operators.jobs import RUNNING, Answer, Follows, JobKind, seconds_between, stop
from retraining.runs.naming import NAME_LIMIT

PROCESSING = JobKind(
    "processing job",
    "ProcessingJobName",
    "ProcessingJobStatus",
    NAME_LIMIT,
    (("AppSpecification",), ("ProcessingInputs",), ("ProcessingOutputConfig",), ("Environment",)),
)


class AdoptingProcessingOperator(Follows, SageMakerProcessingOperator):
    """Runs a processing job and follows its log.

    Returns `{job, status, seconds, output}`; `output` is the URI of the job's first output.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        self.preprocess_config()
        name = self.adopt_or_create(
            PROCESSING,
            self.hook.describe_processing_job,
            lambda r: self.hook.create_processing_job(r, wait_for_completion=False),
        )
        self.set_console_url(f"processing-jobs/{name}")
        description = self._follow(name)
        self.check_ended_well(PROCESSING, description)
        return {
            "job": name,
            "status": description[PROCESSING.status],
            "seconds": seconds_between(description, "ProcessingStartTime", "ProcessingEndTime"),
            "output": description["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"],
        }

    def on_kill(self) -> None:
        stop(self.client.stop_processing_job, ProcessingJobName=self.job_name)

    def _follow(self, name: str) -> Answer:
        tail = LogTail(self.hook.logs_hook.get_conn(), PROCESSING_JOBS, f"{name}/")
        started = time.monotonic()
        while True:
            description: Answer = self.hook.describe_processing_job(name)
            self.show(tail)
            if description[PROCESSING.status] not in RUNNING:
                break
            self.wait(started)
        self.show_rest(tail)
        return description
