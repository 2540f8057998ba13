"""The document of a processing job: the response of DescribeProcessingJob, and how it changes.

Members that start with `_` are the runtime's own.
"""

from __future__ import annotations

from typing import Any

from local_sagemaker.channels import Channel
from local_sagemaker.context import Request
from local_sagemaker.errors import ResourceInUseError
from local_sagemaker.jobs.supervisor import JobKind
from local_sagemaker.store import Document

PROCESSING_JOB = JobKind(
    resource_type="processing-job",
    prefix="ProcessingJob",
    listed_as="ProcessingJobSummaries",
    summary=(
        "ProcessingJobName",
        "ProcessingJobArn",
        "CreationTime",
        "ProcessingEndTime",
        "LastModifiedTime",
        "ProcessingJobStatus",
        "FailureReason",
        "ExitMessage",
    ),
    taken=(
        "Job name must be unique within an AWS account and region, and a job with this name already "
        "exists ({arn})"
    ),
    missing="Could not find requested job with name: {name}",  # Airflow's operator takes it for a free name
    taken_error=ResourceInUseError,
    log_group="/aws/sagemaker/ProcessingJobs",
)

_DAY = 86_400
_S3_INPUT = {"S3InputMode": "File", "S3DataDistributionType": "FullyReplicated", "S3CompressionType": "None"}


def new_document(request: Request, now: float) -> Document:
    """The document of a job that was just created; `now` in epoch seconds."""
    job: Document = {name: value for name, value in request.items() if name != "Tags"}
    job |= {
        "ProcessingJobStatus": "InProgress",
        "CreationTime": now,
        "LastModifiedTime": now,
        "ProcessingInputs": [
            {"AppManaged": False, **item, "S3Input": {**_S3_INPUT, **item["S3Input"]}}
            for item in request.get("ProcessingInputs", [])
        ],
        "StoppingCondition": request.get("StoppingCondition", {"MaxRuntimeInSeconds": _DAY}),
        "_LogStream": f"{request['ProcessingJobName']}/algo-1-{int(now)}",
    }
    if "ProcessingOutputConfig" in request:
        outputs = [{"AppManaged": False, **item} for item in request["ProcessingOutputConfig"]["Outputs"]]
        job["ProcessingOutputConfig"] = {**request["ProcessingOutputConfig"], "Outputs": outputs}
    return job


def platform_inputs(request: Request) -> list[dict[str, Any]]:
    """The inputs that the platform provides; AppManaged ones are left to the container."""
    return [item for item in request.get("ProcessingInputs", []) if not item.get("AppManaged")]


def platform_outputs(request: Request) -> list[dict[str, Any]]:
    """The outputs that the platform uploads; AppManaged ones are left to the container."""
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    return [item for item in outputs if not item.get("AppManaged")]


def channel(item: dict[str, Any]) -> Channel:
    """A ProcessingInput as a training channel."""
    source = item["S3Input"]
    s3_source = {"S3DataType": source["S3DataType"], "S3Uri": source["S3Uri"]}
    return {"ChannelName": item["InputName"], "DataSource": {"S3DataSource": s3_source}}


def begin(job: Document, now: float) -> None:
    """Set the start time; after a restart it stays as it is."""
    if "ProcessingStartTime" not in job:
        job["ProcessingStartTime"] = job["LastModifiedTime"] = now


def request_stop(job: Document, now: float, reason: str | None = None) -> None:
    """Set a running job to stopping; `reason` is the FailureReason if no user asked for it."""
    job["ProcessingJobStatus"] = "Stopping"
    job["_StopRequested"] = job["LastModifiedTime"] = now
    if reason is not None:
        job["FailureReason"] = reason


def finish(job: Document, now: float, failure_reason: str | None) -> None:
    """End the job: Failed if there is a reason, Stopped if it was stopping, else Completed."""
    if failure_reason is not None:
        job["ProcessingJobStatus"], job["FailureReason"] = "Failed", failure_reason
    else:
        stopped = job["ProcessingJobStatus"] == "Stopping"
        job["ProcessingJobStatus"] = "Stopped" if stopped else "Completed"
    job["ProcessingEndTime"] = job["LastModifiedTime"] = now
