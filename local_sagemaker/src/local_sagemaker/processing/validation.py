"""Checks of CreateProcessingJob beyond the shape of the request."""

from __future__ import annotations

from typing import Any

from local_sagemaker.context import Request
from local_sagemaker.errors import ValidationError
from local_sagemaker.image_environments import Images
from local_sagemaker.jobs.validation import check_bucket, check_data, check_one_instance, check_unique
from local_sagemaker.processing.folders import ProcessingFolders
from local_sagemaker.processing.job_document import channel, platform_inputs, platform_outputs
from local_sagemaker.s3.objects import Objects


def check_request(
    request: Request, folders: ProcessingFolders, images: Images, objects: Objects, region: str
) -> None:
    """Raises ValidationError naming the member, its value and what to change."""
    _check_application(request["AppSpecification"], images)
    cluster = request["ProcessingResources"]["ClusterConfig"]
    if "InstanceType" not in cluster:
        raise ValidationError("ProcessingResources.ClusterConfig needs an InstanceType and an InstanceCount")
    check_one_instance(cluster.get("InstanceCount", 1), "ProcessingResources.ClusterConfig.InstanceCount")
    _check_inputs(request, folders, objects, region)
    _check_outputs(request, folders, objects)


def _check_application(application: dict[str, Any], images: Images) -> None:
    images.resolve(application["ImageUri"])
    if "ContainerEntrypoint" not in application:
        raise ValidationError(
            "AppSpecification.ContainerEntrypoint is required here, because images have no entry point of "
            'their own on this machine: pass, for instance, ["python3", "/opt/ml/processing/input/code/x.py"]'
        )


def _check_inputs(request: Request, folders: ProcessingFolders, objects: Objects, region: str) -> None:
    inputs = request.get("ProcessingInputs", [])
    check_unique([item["InputName"] for item in inputs], "ProcessingInputs")
    for item in inputs:
        if "S3Input" not in item:
            raise ValidationError(
                f"The input {item['InputName']!r} has no S3Input; dataset definitions are not supported here"
            )
    provided = platform_inputs(request)
    for item in provided:
        _check_mode(item)
        folders.data(_local_path(item["S3Input"], f"input {item['InputName']!r}"))
        check_data(channel(item), f"Input {item['InputName']!r}", objects, request["RoleArn"], region)
    check_unique([item["S3Input"]["LocalPath"] for item in provided], "ProcessingInputs' LocalPath")


def _check_mode(item: dict[str, Any]) -> None:
    name, source = item["InputName"], item["S3Input"]
    if source.get("S3InputMode", "File") != "File":
        raise ValidationError(f"Input {name!r}: S3InputMode Pipe is not supported here; use File")
    if source.get("S3CompressionType", "None") != "None":
        raise ValidationError(
            f"Input {name!r}: S3CompressionType Gzip can only be used if the S3InputMode is Pipe; use None "
            "and decompress in the script"
        )


def _check_outputs(request: Request, folders: ProcessingFolders, objects: Objects) -> None:
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    check_unique([item["OutputName"] for item in outputs], "ProcessingOutputConfig.Outputs")
    for item in outputs:
        if "S3Output" not in item:
            raise ValidationError(
                f"The output {item['OutputName']!r} has no S3Output; Feature Store is not supported here"
            )
    for item in platform_outputs(request):
        label = f"output {item['OutputName']!r}"
        folders.data(_local_path(item["S3Output"], label))
        check_bucket(item["S3Output"]["S3Uri"], f"S3Uri of {label}", objects)


def _local_path(location: dict[str, Any], label: str) -> str:
    if "LocalPath" not in location:
        raise ValidationError(f"The {label} needs a LocalPath below /opt/ml/processing")
    path: str = location["LocalPath"]
    return path
