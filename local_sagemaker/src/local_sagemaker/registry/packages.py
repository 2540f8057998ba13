"""Model packages: image, model data and metadata, as a version in a group or on their own."""

from __future__ import annotations

import threading

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ConflictError, ValidationError
from local_sagemaker.image_environments import Images
from local_sagemaker.registry.groups import PACKAGE_TYPE, ModelPackageGroups
from local_sagemaker.registry.validation import check_approval, check_containers, check_request
from local_sagemaker.resources import ResourceKind, Resources, name_of
from local_sagemaker.s3.objects import Objects
from local_sagemaker.store import Document

APPROVED = "Approved"

_PENDING = "PendingManualApproval"
_NOT_DESCRIBED = ("Tags", "ClientToken")
_REPLACED = (
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
    "ApprovalDescription",
    "InferenceSpecification",
    "SourceUri",
    "ModelCard",
    "ModelLifeCycle",
)
_PACKAGE = ResourceKind(
    resource_type=PACKAGE_TYPE,
    prefix="ModelPackage",
    listed_as="ModelPackageSummaryList",
    summary=(
        "ModelPackageName",
        "ModelPackageGroupName",
        "ModelPackageVersion",
        "ModelPackageArn",
        "ModelPackageDescription",
        "CreationTime",
        "ModelPackageStatus",
        "ModelApprovalStatus",
        "ModelLifeCycle",
        "ModelPackageRegistrationType",
    ),
    taken="Model Package already exists: {arn}",
    missing="ModelPackage {arn} does not exist.",
    taken_error=ConflictError,
    stored_name="_Name",
)
_MAX_METADATA = 50  # CustomerMetadataProperties, API reference


class ModelPackages(Resources):
    """The package operations.

    A package's images and data must exist when it is registered. Models created from a package are not
    affected when it is deleted.
    """

    def __init__(
        self, context: Context, objects: Objects, images: Images, groups: ModelPackageGroups
    ) -> None:
        super().__init__(_PACKAGE, context)
        self._objects = objects
        self._images = images
        self._groups = groups
        self._creating = threading.Lock()

    def create(self, request: Request) -> Response:
        """Register a package. For a known ClientToken, which a client's retry has, return the first one."""
        check_request(request, self._images, self._objects)
        if "ModelPackageGroupName" in request:
            self._groups.find(request["ModelPackageGroupName"])
        with self._creating:
            known = self._with_token(request.get("ClientToken"))
            return self._register(request) if known is None else {"ModelPackageArn": known["ModelPackageArn"]}

    def describe_many(self, request: Request) -> Response:
        found, missing = {}, {}
        for arn in request["ModelPackageArnList"]:
            try:
                found[arn] = self.find(arn)
            except ValidationError as error:
                missing[arn] = {"ErrorCode": error.code, "ErrorResponse": error.message}
        return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": missing}

    def update(self, request: Request) -> Response:
        name = self.find(request["ModelPackageArn"])["_Name"]
        check_approval(name, request)
        check_containers(request, self._images, self._objects)
        now = self._context.clock()
        package = self.change(name, lambda document: _update(document, request, now))
        return {"ModelPackageArn": package["ModelPackageArn"]}

    def container(self, name_or_arn: str, specification: str | None) -> Document:
        """The container definition of an approved package; `specification` names one of its
        AdditionalInferenceSpecifications.

        Raises ValidationError if the package does not exist, is not approved, or has several containers.
        """
        package = self.find(name_or_arn)
        arn = package["ModelPackageArn"]
        approval = package.get("ModelApprovalStatus", APPROVED)  # packages outside groups have none
        if approval != APPROVED:
            raise ValidationError(
                f"Model package {arn} cannot be deployed: its ModelApprovalStatus is {approval}; approve it "
                "with UpdateModelPackage first"
            )
        containers = _specification(package, specification)["Containers"]
        if len(containers) != 1:
            raise ValidationError(
                f"Model package {arn} has {len(containers)} containers; this runtime hosts models of exactly "
                "one"
            )
        members = ("Image", "ModelDataUrl", "ModelDataSource", "Environment")
        return {member: containers[0][member] for member in members if member in containers[0]}

    def _with_token(self, token: str | None) -> Document | None:
        packages = self._context.store.list(PACKAGE_TYPE) if token else []
        return next((package for package in packages if package["_ClientToken"] == token), None)

    def _register(self, request: Request) -> Response:
        package: Document = {key: value for key, value in request.items() if key not in _NOT_DESCRIBED}
        if "ModelPackageGroupName" in request:
            group = name_of(request["ModelPackageGroupName"])
            version = self._groups.next_version(group)
            name = f"{group}/{version}"
            package |= {
                "ModelPackageGroupName": group,
                "ModelPackageVersion": version,
                "ModelApprovalStatus": request.get("ModelApprovalStatus", _PENDING),
            }
        else:
            name = request["ModelPackageName"]
        now = self._context.clock()
        package |= {
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CertifyForMarketplace": request.get("CertifyForMarketplace", False),
            "CreationTime": now,
            "CreatedBy": {},
            "_Name": name,
            "_ClientToken": request.get("ClientToken"),
        }
        return self.add(name, package, request.get("Tags"))

    def _listed(self, request: Request) -> list[Document]:
        return [item for item in super()._listed(request) if _matches(item, request)]


def _specification(package: Document, name: str | None) -> Document:
    if name is None:
        first: Document = package["InferenceSpecification"]
        return first
    for specification in package.get("AdditionalInferenceSpecifications", []):
        if specification["Name"] == name:
            found: Document = specification
            return found
    raise ValidationError(
        f"Model package {package['ModelPackageArn']} has no additional inference specification {name!r}"
    )


def _matches(package: Document, request: Request) -> bool:
    """Whether a List request includes a package; without group and type, it includes those in no group."""
    versioned = "ModelPackageGroupName" in package
    group = request.get("ModelPackageGroupName")
    kind = request.get("ModelPackageType", "Unversioned" if group is None else "Versioned")
    approval = request.get("ModelApprovalStatus")
    return (
        (group is None or package.get("ModelPackageGroupName") == name_of(group))
        and kind in {"Both", "Versioned" if versioned else "Unversioned"}
        and (approval is None or package.get("ModelApprovalStatus") == approval)
    )


def _update(package: Document, request: Request, now: float) -> None:
    """Apply an UpdateModelPackage request. Raises ValidationError for too many metadata properties."""
    package |= {member: request[member] for member in _REPLACED if member in request}
    properties = package.get("CustomerMetadataProperties", {}) | request.get("CustomerMetadataProperties", {})
    for key in request.get("CustomerMetadataPropertiesToRemove", []):
        properties.pop(key, None)
    if len(properties) > _MAX_METADATA:
        raise ValidationError(
            f"The model package would have {len(properties)} CustomerMetadataProperties; "
            f"{_MAX_METADATA} are allowed"
        )
    package.pop("CustomerMetadataProperties", None)
    if properties:
        package["CustomerMetadataProperties"] = properties
    if added := request.get("AdditionalInferenceSpecificationsToAdd"):
        specifications = [*package.get("AdditionalInferenceSpecifications", []), *added]
        package["AdditionalInferenceSpecifications"] = specifications
    package["LastModifiedTime"] = now
    package["LastModifiedBy"] = {}
