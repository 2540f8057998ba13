"""Model package groups: the versions of one model, numbered as they are registered."""

from __future__ import annotations

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ConflictError
from local_sagemaker.resources import ResourceKind, Resources
from local_sagemaker.store import Document

PACKAGE_TYPE = "model-package"
_GROUP = ResourceKind(
    resource_type="model-package-group",
    prefix="ModelPackageGroup",
    listed_as="ModelPackageGroupSummaryList",
    summary=(
        "ModelPackageGroupName",
        "ModelPackageGroupArn",
        "ModelPackageGroupDescription",
        "CreationTime",
        "ModelPackageGroupStatus",
    ),
    taken="Model Package Group already exists: {arn}",
    missing="ModelPackageGroup {arn} does not exist.",
)


class ModelPackageGroups(Resources):
    """The group operations, and the count of each group's versions."""

    def __init__(self, context: Context) -> None:
        super().__init__(_GROUP, context)

    def create(self, request: Request) -> Response:
        group = {key: value for key, value in request.items() if key != "Tags"}
        group |= {
            "ModelPackageGroupStatus": "Completed",
            "CreationTime": self._context.clock(),
            "CreatedBy": {},
            "_Versions": 0,
        }
        return self.add(request["ModelPackageGroupName"], group, request.get("Tags"))

    def delete(self, request: Request) -> Response:
        """Delete an empty group. Like AWS, raises ConflictError for a group with packages."""
        group = self.find(request["ModelPackageGroupName"])
        name, arn = group["ModelPackageGroupName"], group["ModelPackageGroupArn"]
        packages = self._context.store.list(PACKAGE_TYPE)
        if count := sum(package.get("ModelPackageGroupName") == name for package in packages):
            raise ConflictError(
                f"Model Package Group {arn} cannot be deleted as it still contains {count} model packages; "
                "delete them first"
            )
        self.remove(group)
        return {}

    def next_version(self, name: str) -> int:
        """The next version number; numbers are never reused. Raises ValidationError."""

        def count(group: Document) -> None:
            group["_Versions"] += 1

        versions: int = self.change(name, count)["_Versions"]
        return versions
