"""Model package groups: the versions of one model, in the order in which they were registered."""

from __future__ import annotations

from collections.abc import Mapping

from local_sagemaker.context import Answer, Context, Operation, Request
from local_sagemaker.errors import ConflictError, ValidationError
from local_sagemaker.listing import select
from local_sagemaker.registry.names import GROUP_KIND, PACKAGE_KIND, name_of
from local_sagemaker.store import Document, DocumentExistsError, DocumentMissingError
from local_sagemaker.tags import forget_tags, set_tags

_SUMMARY = (
    "ModelPackageGroupName",
    "ModelPackageGroupArn",
    "ModelPackageGroupDescription",
    "CreationTime",
    "ModelPackageGroupStatus",
)


class ModelPackageGroups:
    """The group operations, and the count of each group's versions."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateModelPackageGroup": self.create,
            "DescribeModelPackageGroup": self.describe,
            "ListModelPackageGroups": self.list,
            "DeleteModelPackageGroup": self.delete,
        }

    def create(self, request: Request) -> Answer:
        name = request["ModelPackageGroupName"]
        arn = self._context.arn(GROUP_KIND, name)
        group = {key: value for key, value in request.items() if key != "Tags"}
        group |= {
            "ModelPackageGroupArn": arn,
            "ModelPackageGroupStatus": "Completed",
            "CreationTime": self._context.clock(),
            "CreatedBy": {},
            "_Versions": 0,
        }
        try:
            self._context.store.create(GROUP_KIND, name, group)
        except DocumentExistsError as error:
            raise ValidationError(f"Model Package Group already exists: {arn}") from error
        set_tags(self._context, arn, request.get("Tags"))
        return {"ModelPackageGroupArn": arn}

    def describe(self, request: Request) -> Answer:
        return self.find(name_of(request["ModelPackageGroupName"]))

    def list(self, request: Request) -> Answer:
        groups, token = select(self._context.store.list(GROUP_KIND), request, name="ModelPackageGroupName")
        summaries = [{member: group[member] for member in _SUMMARY if member in group} for group in groups]
        return {"ModelPackageGroupSummaryList": summaries, "NextToken": token}

    def delete(self, request: Request) -> Answer:
        """Delete a group without packages; AWS refuses others, too."""
        name = name_of(request["ModelPackageGroupName"])
        arn = self.find(name)["ModelPackageGroupArn"]
        packages = self._context.store.list(PACKAGE_KIND)
        if count := sum(package.get("ModelPackageGroupName") == name for package in packages):
            raise ConflictError(
                f"Model Package Group {arn} cannot be deleted as it still contains {count} model packages; "
                "delete them first"
            )
        self._context.store.delete(GROUP_KIND, name)
        forget_tags(self._context, arn)
        return {}

    def find(self, name: str) -> Document:
        """The group's document. Raises ValidationError."""
        group = self._context.store.get(GROUP_KIND, name)
        if group is None:
            raise self._missing(name)
        return group

    def next_version(self, name: str) -> int:
        """The number of a new version, which no version had before. Raises ValidationError."""

        def count(group: Document) -> None:
            group["_Versions"] += 1

        try:
            versions: int = self._context.store.update(GROUP_KIND, name, count)["_Versions"]
        except DocumentMissingError as error:
            raise self._missing(name) from error
        return versions

    def _missing(self, name: str) -> ValidationError:
        return ValidationError(f"ModelPackageGroup {self._context.arn(GROUP_KIND, name)} does not exist.")
