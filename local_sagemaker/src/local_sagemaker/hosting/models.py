"""Models: an image, the S3 URI of its model.tar.gz and environment variables, under one name."""

from __future__ import annotations

from typing import Protocol

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.model_data import ModelData
from local_sagemaker.image_environments import Images
from local_sagemaker.resources import ResourceKind, Resources
from local_sagemaker.s3.objects import Objects
from local_sagemaker.store import Document

_MODEL = ResourceKind(
    resource_type="model",
    prefix="Model",
    listed_as="Models",
    summary=("ModelName", "ModelArn", "CreationTime"),
    taken='Cannot create already existing model "{arn}".',
    missing='Could not find model "{arn}".',
)


class Packages(Protocol):
    """The part of the model registry that models need."""

    def container(self, package: str, specification: str | None) -> Document:
        """The container of an approved model package. Raises ValidationError."""
        ...


class Models(Resources):
    """The model operations.

    A model's image and data, or its model package, must exist when it is created. Endpoints that run a model
    have a copy of it and are not affected when it is deleted, as on AWS.
    """

    def __init__(self, context: Context, objects: Objects, images: Images, packages: Packages) -> None:
        super().__init__(_MODEL, context)
        self._objects = objects
        self._images = images
        self._packages = packages

    def create(self, request: Request) -> Response:
        name = request["ModelName"]
        document = {key: value for key, value in request.items() if key != "Tags"}
        document["CreationTime"] = self._context.clock()
        if self._context.store.get(_MODEL.resource_type, name) is None:
            document["_Container"] = self._resolved(container_of(request))
            self._check(document["_Container"])
        return self.add(name, document, request.get("Tags"))

    def _resolved(self, container: Document) -> Document:
        """The container with its model package's content, so that deleting the package does not affect it."""
        if "ModelPackageName" not in container:
            return container
        specification = container.get("InferenceSpecificationName")
        package = self._packages.container(container["ModelPackageName"], specification)
        environment = package.get("Environment", {}) | container.get("Environment", {})
        return {**package, "Environment": environment}

    def _check(self, container: Document) -> None:
        self._images.resolve(container["Image"])
        data = ModelData.of(container)
        if data is not None and not data.exists(self._objects):
            raise ValidationError(f"Could not find model data at {data.uri}.")


def container_of(model: Document) -> Document:
    """The definition of a model's one container, for a stored model with its model package's content.

    Raises ValidationError for models that this runtime cannot host.
    """
    if "_Container" in model:
        resolved: Document = model["_Container"]
        return resolved
    containers = [model["PrimaryContainer"]] if "PrimaryContainer" in model else model.get("Containers", [])
    if len(containers) != 1:
        raise ValidationError(
            f"The model {model['ModelName']!r} has {len(containers)} containers; this runtime hosts models "
            "of exactly one: pass PrimaryContainer."
        )
    container: Document = containers[0]
    if container.get("Mode", "SingleModel") != "SingleModel":
        raise ValidationError("Multi-model containers are not part of this runtime: leave out Mode.")
    sources = [member for member in ("Image", "ModelPackageName") if member in container]
    if len(sources) != 1:
        raise ValidationError(
            f"The container of the model {model['ModelName']!r} needs either an Image or a ModelPackageName."
        )
    if "ModelPackageName" in container and ("ModelDataUrl" in container or "ModelDataSource" in container):
        raise ValidationError("A ModelPackageName brings its own model data: leave out ModelDataUrl.")
    return container
