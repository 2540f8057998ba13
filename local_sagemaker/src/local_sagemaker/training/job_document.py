"""The document of a training job: the response of DescribeTrainingJob, and how it changes while the job runs.

Members that start with `_` are the runtime's own. Defaults and status messages are those of AWS's responses.
"""

from __future__ import annotations

from typing import Any

from local_sagemaker.context import Request
from local_sagemaker.debugging import statuses as rules
from local_sagemaker.errors import ResourceInUseError
from local_sagemaker.jobs.artifacts import join_uri
from local_sagemaker.jobs.supervisor import JobKind
from local_sagemaker.store import Document

TRAINING_JOB = JobKind(
    resource_type="training-job",
    prefix="TrainingJob",
    listed_as="TrainingJobSummaries",
    summary=(
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "TrainingJobStatus",
        "SecondaryStatus",
    ),
    taken="Training job names must be unique within an AWS account and region",
    missing="Requested resource not found.",
    taken_error=ResourceInUseError,
    log_group="/aws/sagemaker/TrainingJobs",
)

_NOT_DESCRIBED = ("Tags", "SessionChainingConfig")
_MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Stopping": "Stopping the training job",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}
_DAY = 86_400


def new_document(request: Request, arn: str, now: float, tuning_job_arn: str | None) -> Document:
    """The document of a job that was just created; `now` in epoch seconds."""
    job: Document = {name: value for name, value in request.items() if name not in _NOT_DESCRIBED}
    job |= {
        "TrainingJobArn": arn,
        "TrainingJobStatus": "InProgress",
        "CreationTime": now,
        "SecondaryStatusTransitions": [],
        "HyperParameters": request.get("HyperParameters", {}),
        "AlgorithmSpecification": {
            "EnableSageMakerMetricsTimeSeries": True,
            **request["AlgorithmSpecification"],
        },
        "InputDataConfig": [_channel(item) for item in request.get("InputDataConfig", [])],
        "OutputDataConfig": {"KmsKeyId": "", "CompressionType": "GZIP", **request["OutputDataConfig"]},
        "StoppingCondition": {"MaxRuntimeInSeconds": _DAY, **request.get("StoppingCondition", {})},
        "_LogStream": f"{request['TrainingJobName']}/algo-1-{int(now)}",
    }
    for switch in (
        "EnableNetworkIsolation",
        "EnableInterContainerTrafficEncryption",
        "EnableManagedSpotTraining",
    ):
        job.setdefault(switch, False)
    for member in rules.MEMBERS:
        if member in job:
            job[member] = [{"VolumeSizeInGB": 0, **rule} for rule in job[member]]
    rules.begin(job, now)
    if "ProfilerConfig" in job:
        job["ProfilerConfig"] = {"DisableProfiler": False, **job["ProfilerConfig"]}
        job["ProfilingStatus"] = "Disabled" if job["ProfilerConfig"]["DisableProfiler"] else "Enabled"
    job["ModelArtifacts"] = {"S3ModelArtifacts": model_uri(job)}
    if tuning_job_arn is not None:
        job["TuningJobArn"] = tuning_job_arn
    enter(job, "Starting", now)
    return job


def _channel(channel: dict[str, Any]) -> dict[str, Any]:
    source = channel["DataSource"]["S3DataSource"]
    return {
        **channel,
        "DataSource": {"S3DataSource": {"S3DataDistributionType": "FullyReplicated", **source}},
        "CompressionType": channel.get("CompressionType", "None"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }


def enter(job: Document, status: str, now: float) -> None:
    """Start a secondary status and end the previous one; nothing changes if it has started already."""
    transitions = job["SecondaryStatusTransitions"]
    if transitions and transitions[-1]["Status"] == status:
        return
    if transitions:
        transitions[-1].setdefault("EndTime", now)
    transitions.append({"Status": status, "StartTime": now, "StatusMessage": _MESSAGES[status]})
    job["SecondaryStatus"] = status
    job["LastModifiedTime"] = now
    if status == "Downloading":
        job["TrainingStartTime"] = now


def request_stop(job: Document, now: float, ends_as: str = "Stopped") -> None:
    """Set a running job to stopping; `ends_as` is its final secondary status."""
    job["TrainingJobStatus"] = "Stopping"
    job["_StopRequested"] = now
    job["_EndsAs"] = ends_as
    enter(job, "Stopping", now)


def finish(job: Document, now: float, failure_reason: str | None) -> None:
    """End the job: Failed if there is a reason, Stopped if it was stopping, else Completed."""
    if failure_reason is not None:
        status = secondary = "Failed"
        job["FailureReason"] = failure_reason
    elif job["TrainingJobStatus"] == "Stopping":
        status, secondary = "Stopped", job["_EndsAs"]
    else:
        status = secondary = "Completed"
    enter(job, secondary, now)
    job["SecondaryStatusTransitions"][-1]["EndTime"] = now
    job["TrainingJobStatus"] = status
    job["TrainingEndTime"] = now
    if "TrainingStartTime" in job:
        seconds = int(now - job["TrainingStartTime"])
        job["TrainingTimeInSeconds"] = job["BillableTimeInSeconds"] = max(seconds, 1)


def model_uri(job: Document) -> str:
    """The S3 URI of the model: an archive, or a prefix if the job's output is not compressed."""
    name = "model.tar.gz" if packs_output(job) else "model/"
    return output_uri(job, "output", name)


def packs_output(job: Document) -> bool:
    return bool(job["OutputDataConfig"]["CompressionType"] == "GZIP")


def output_uri(job: Document, *parts: str) -> str:
    """`<S3OutputPath>/<job>/...`."""
    return join_uri(job["OutputDataConfig"]["S3OutputPath"], job["TrainingJobName"], *parts)


def update(job: Document, request: Request, now: float) -> None:
    """Apply an UpdateTrainingJob request: merge the profiler configuration, append the rules."""
    if (config := request.get("ProfilerConfig")) is not None:
        job["ProfilerConfig"] = {"DisableProfiler": False, **job.get("ProfilerConfig", {}), **config}
        job["ProfilingStatus"] = "Disabled" if job["ProfilerConfig"]["DisableProfiler"] else "Enabled"
    if configurations := request.get("ProfilerRuleConfigurations"):
        added = [{"VolumeSizeInGB": 0, **rule} for rule in configurations]
        job["ProfilerRuleConfigurations"] = [*job.get("ProfilerRuleConfigurations", []), *added]
        rules.begin(job, now)
    if (resources := request.get("ResourceConfig")) is not None:
        job["ResourceConfig"] |= resources
    if (remote_debug := request.get("RemoteDebugConfig")) is not None:
        job["RemoteDebugConfig"] = remote_debug
    job["LastModifiedTime"] = now
