"""The model registry as one service, and as the place where hosting looks model packages up."""

from __future__ import annotations

from collections.abc import Mapping

from local_sagemaker.context import Context, Operation
from local_sagemaker.image_environments import Images
from local_sagemaker.registry.groups import ModelPackageGroups
from local_sagemaker.registry.packages import ModelPackages
from local_sagemaker.s3.objects import Objects
from local_sagemaker.store import Document


class ModelRegistry:
    """A `Service`, and hosting's `Packages`."""

    def __init__(self, context: Context, objects: Objects, images: Images) -> None:
        self._groups = ModelPackageGroups(context)
        self._packages = ModelPackages(context, objects, images, self._groups)

    def operations(self) -> Mapping[str, Operation]:
        return {**self._groups.operations(), **self._packages.operations()}

    def resume(self) -> None:
        """Groups and packages are at rest in the store."""

    def close(self) -> None:
        """Nothing runs here."""

    def container(self, package: str, specification: str | None) -> Document:
        """The container of an approved package. Raises ValidationError."""
        return self._packages.container(package, specification)
