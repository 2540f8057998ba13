"""Models: an image, the S3 address of its model.tar.gz and an environment, under one name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from local_sagemaker.context import Answer, Context, Operation, Request
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.model_data import ModelData
from local_sagemaker.image_environments import Images
from local_sagemaker.listing import select
from local_sagemaker.s3.objects import Objects
from local_sagemaker.store import Document, DocumentExistsError
from local_sagemaker.tags import forget_tags, set_tags

KIND = "model"


class Packages(Protocol):
    """The model registry, as far as models need it."""

    def container(self, package: str, specification: str | None) -> Document:
        """The container of an approved model package. Raises ValidationError."""
        ...


class Models:
    """The model operations. What a model names must exist when it is created: its image and its data, or its
    model package.
    """

    def __init__(self, context: Context, objects: Objects, images: Images, packages: Packages) -> None:
        self._context = context
        self._objects = objects
        self._images = images
        self._packages = packages

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateModel": self.create,
            "DescribeModel": self.describe,
            "DeleteModel": self.delete,
            "ListModels": self.list,
        }

    def create(self, request: Request) -> Answer:
        name = request["ModelName"]
        arn = self._context.arn(KIND, name)
        document = {key: value for key, value in request.items() if key != "Tags"}
        document |= {"ModelArn": arn, "CreationTime": self._context.clock()}
        if self._context.store.get(KIND, name) is None:
            document["_Container"] = self._resolved(container_of(request))
            self._check(document["_Container"])
        try:
            self._context.store.create(KIND, name, document)
        except DocumentExistsError as error:
            raise ValidationError(f'Cannot create already existing model "{arn}".') from error
        set_tags(self._context, arn, request.get("Tags"))
        return {"ModelArn": arn}

    def describe(self, request: Request) -> Answer:
        return self.find(request["ModelName"])

    def delete(self, request: Request) -> Answer:
        """Endpoints that run the model keep their copy of it and go on, as on AWS."""
        arn = self._context.arn(KIND, request["ModelName"])
        if not self._context.store.delete(KIND, request["ModelName"]):
            raise ValidationError(f'Could not find model "{arn}".')
        forget_tags(self._context, arn)
        return {}

    def list(self, request: Request) -> Answer:
        models, token = select(self._context.store.list(KIND), request, name="ModelName")
        summaries = [
            {key: model[key] for key in ("ModelName", "ModelArn", "CreationTime")} for model in models
        ]
        return {"Models": summaries, "NextToken": token}

    def find(self, name: str) -> Document:
        """The model's document. Raises ValidationError where there is none."""
        document = self._context.store.get(KIND, name)
        if document is None:
            raise ValidationError(f'Could not find model "{self._context.arn(KIND, name)}".')
        return document

    def _resolved(self, container: Document) -> Document:
        """The container with what its model package says: a model goes on when its package is deleted."""
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
    """The definition of a model's one container, with the content of a model package once it was created.

    Raises ValidationError for what this runtime cannot host.
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
