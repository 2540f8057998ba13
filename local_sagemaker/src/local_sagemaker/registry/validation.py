"""Checks of the registry's operations beyond the shape of the request."""

from __future__ import annotations

from local_sagemaker.context import Request
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.model_data import ModelData
from local_sagemaker.image_environments import Images
from local_sagemaker.s3.objects import Objects


def check_request(request: Request, images: Images, objects: Objects) -> None:
    """Check a CreateModelPackage request. Raises ValidationError naming the member and what to change."""
    named = [member for member in ("ModelPackageName", "ModelPackageGroupName") if member in request]
    if len(named) > 1:
        raise ValidationError(
            "Both ModelPackageName and ModelPackageGroupName are provided in the input. Cannot determine "
            "which one to use."
        )
    if not named:
        raise ValidationError("Missing ARN: a ModelPackageGroupName or a ModelPackageName is required.")
    if "InferenceSpecification" not in request:
        raise ValidationError(
            "An InferenceSpecification is required here; algorithms (SourceAlgorithmSpecification) and "
            "other sources are not supported"
        )
    if "ValidationSpecification" in request:
        raise ValidationError("Validation by transform jobs is not supported here: leave it out")
    check_approval(request.get("ModelPackageName", ""), request)
    check_containers(request, images, objects)


def check_approval(name: str, request: Request) -> None:
    """Raises ValidationError for an approval status of a package in no group."""
    if name and "/" not in name and "ModelApprovalStatus" in request:
        raise ValidationError(f"The model package {name} is in no group, so it has no ModelApprovalStatus")


def check_containers(request: Request, images: Images, objects: Objects) -> None:
    """Raises ValidationError for inference specifications whose images or model data do not exist."""
    specifications = [
        *([request["InferenceSpecification"]] if "InferenceSpecification" in request else []),
        *request.get("AdditionalInferenceSpecifications", []),
        *request.get("AdditionalInferenceSpecificationsToAdd", []),
    ]
    for container in (item for specification in specifications for item in specification["Containers"]):
        if "Image" not in container:
            raise ValidationError("Each container of a model package needs an Image.")
        images.resolve(container["Image"])
        data = ModelData.of(container)
        if data is not None and not data.exists(objects):
            raise ValidationError(f"Could not find model data at {data.uri}.")
