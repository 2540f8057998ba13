"""The model registry as one service, in which hosting finds model packages."""

from __future__ import annotations

from local_sagemaker.context import Context
from local_sagemaker.image_environments import Images
from local_sagemaker.registry.groups import ModelPackageGroups
from local_sagemaker.registry.packages import ModelPackages
from local_sagemaker.s3.objects import Objects
from local_sagemaker.store import Document


class ModelRegistry:
    """The groups and packages; also hosting's `Packages`."""

    def __init__(self, context: Context, objects: Objects, images: Images) -> None:
        self.groups = ModelPackageGroups(context)
        self.packages = ModelPackages(context, objects, images, self.groups)

    def container(self, package: str, specification: str | None) -> Document:
        """The container of an approved package. Raises ValidationError."""
        return self.packages.container(package, specification)
