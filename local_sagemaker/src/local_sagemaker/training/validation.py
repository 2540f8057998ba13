"""Checks of CreateTrainingJob beyond the shape of the request."""

from __future__ import annotations

from typing import Any

from local_sagemaker.context import Request
from local_sagemaker.debugging.statuses import configurations
from local_sagemaker.errors import ValidationError
from local_sagemaker.image_environments import Images
from local_sagemaker.jobs.validation import check_bucket, check_data, check_one_instance, check_unique
from local_sagemaker.paths import relative
from local_sagemaker.s3.objects import Objects
from local_sagemaker.training.folders import TrainingFolders
from local_sagemaker.training.metrics import definitions

_MODES = ("File", "FastFile")
_DATA_TYPES = ("S3Prefix", "ManifestFile")


def check_request(
    request: Request, folders: TrainingFolders, images: Images, objects: Objects, region: str
) -> None:
    """Raises ValidationError naming the member, its value and what to change."""
    _check_algorithm(request, images)
    check_rules(request, images)
    _check_resources(request)
    _check_stopping(request)
    _check_local_paths(request, folders)
    _check_destinations(request, objects)
    _check_channels(request, objects, region)


def _check_algorithm(request: Request, images: Images) -> None:
    algorithm = request.get("AlgorithmSpecification")
    if not algorithm:
        raise ValidationError(
            "AlgorithmSpecification is required: name a TrainingImage and a TrainingInputMode"
        )
    if "TrainingImage" not in algorithm:
        raise ValidationError(
            "AlgorithmSpecification.TrainingImage is required; algorithms of the AWS Marketplace "
            "(AlgorithmName) are not available on this machine"
        )
    if "ContainerEntrypoint" in algorithm or "ContainerArguments" in algorithm:
        raise ValidationError(
            "ContainerEntrypoint and ContainerArguments are not supported here: jobs run AWS's training "
            "toolkit. Name the script in the hyperparameters sagemaker_program and sagemaker_submit_directory"
        )
    _check_mode(algorithm["TrainingInputMode"], "AlgorithmSpecification.TrainingInputMode")
    images.resolve(algorithm["TrainingImage"])
    definitions(algorithm)
    names = [item["Name"] for item in algorithm.get("MetricDefinitions", [])]
    check_unique(names, "MetricDefinitions")


def check_rules(request: Request, images: Images) -> None:
    """Raises ValidationError for a rule name that is repeated or cannot be a folder, or an unknown image."""
    rules = configurations(request)
    check_unique([rule["RuleConfigurationName"] for rule in rules], "The list of rule configurations")
    for rule in rules:
        relative(rule["RuleConfigurationName"])
        images.resolve(rule["RuleEvaluatorImage"])


def _check_mode(mode: str, member: str) -> None:
    if mode not in _MODES:
        raise ValidationError(f"{member} {mode} is not supported here; use one of {', '.join(_MODES)}")


def _check_resources(request: Request) -> None:
    resources = request.get("ResourceConfig")
    if not resources or "InstanceType" not in resources:
        raise ValidationError("ResourceConfig needs an InstanceType and an InstanceCount")
    check_one_instance(resources.get("InstanceCount", 1), "ResourceConfig.InstanceCount")


def _check_stopping(request: Request) -> None:
    condition = request.get("StoppingCondition", {})
    if not request.get("EnableManagedSpotTraining"):
        if "MaxWaitTimeInSeconds" in condition:
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It can be supplied only when "
                "EnableManagedSpotTraining is true."
            )
        return
    wait, runtime = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds")
    if wait is None or (runtime is not None and wait < runtime):
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
            "MaxRuntimeInSeconds."
        )


def _check_local_paths(request: Request, folders: TrainingFolders) -> None:
    for member in ("CheckpointConfig", "DebugHookConfig", "TensorBoardOutputConfig"):
        if path := request.get(member, {}).get("LocalPath"):
            folders.local(path)
    if path := request.get("ProfilerConfig", {}).get("ProfilingParameters", {}).get("LocalPath"):
        folders.local(path)


def _check_destinations(request: Request, objects: Objects) -> None:
    destinations = {
        "OutputDataConfig.S3OutputPath": request["OutputDataConfig"]["S3OutputPath"],
        "CheckpointConfig.S3Uri": request.get("CheckpointConfig", {}).get("S3Uri"),
        "DebugHookConfig.S3OutputPath": request.get("DebugHookConfig", {}).get("S3OutputPath"),
        "ProfilerConfig.S3OutputPath": request.get("ProfilerConfig", {}).get("S3OutputPath"),
        "TensorBoardOutputConfig.S3OutputPath": request.get("TensorBoardOutputConfig", {}).get(
            "S3OutputPath"
        ),
    }
    for member, uri in destinations.items():
        if uri is not None:
            check_bucket(uri, member, objects)


def _check_channels(request: Request, objects: Objects, region: str) -> None:
    channels = request.get("InputDataConfig", [])
    check_unique([channel["ChannelName"] for channel in channels], "InputDataConfig")
    for channel in channels:
        relative(channel["ChannelName"])
        _check_channel(channel, objects, request["RoleArn"], region)


def _check_channel(channel: dict[str, Any], objects: Objects, role: str, region: str) -> None:
    name = channel["ChannelName"]
    source = channel["DataSource"].get("S3DataSource")
    if source is None:
        raise ValidationError(
            f"Channel {name!r} has no S3DataSource; other data sources are not supported here"
        )
    if source["S3DataType"] not in _DATA_TYPES:
        raise ValidationError(
            f"Channel {name!r}: S3DataType {source['S3DataType']} is not supported here; "
            f"use one of {', '.join(_DATA_TYPES)}"
        )
    if channel.get("RecordWrapperType", "None") != "None":
        raise ValidationError(
            f"Channel {name!r}: RecordWrapperType RecordIO is not supported here; leave it out"
        )
    if "InputMode" in channel:
        _check_mode(channel["InputMode"], f"InputMode of channel {name!r}")
    check_data(channel, f"Channel {name!r}", objects, role, region)
