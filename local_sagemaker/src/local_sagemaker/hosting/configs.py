"""Endpoint configurations: which models an endpoint runs, on how many instances, with which share of the
traffic.
"""

from __future__ import annotations

from collections.abc import Mapping

from local_sagemaker.context import Answer, Context, Operation, Request
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.models import Models
from local_sagemaker.listing import select
from local_sagemaker.store import Document, DocumentExistsError
from local_sagemaker.tags import forget_tags, set_tags

KIND = "endpoint-config"

_NOT_HOSTED = {
    "AsyncInferenceConfig": "asynchronous inference",
    "ExplainerConfig": "explainers",
    "ShadowProductionVariants": "shadow variants",
}


class EndpointConfigs:
    """The endpoint configuration operations."""

    def __init__(self, context: Context, models: Models) -> None:
        self._context = context
        self._models = models

    def operations(self) -> Mapping[str, Operation]:
        return {
            "CreateEndpointConfig": self.create,
            "DescribeEndpointConfig": self.describe,
            "DeleteEndpointConfig": self.delete,
            "ListEndpointConfigs": self.list,
        }

    def create(self, request: Request) -> Answer:
        name = request["EndpointConfigName"]
        arn = self._context.arn(KIND, name)
        self._check(request)
        document = {key: value for key, value in request.items() if key != "Tags"}
        document |= {"EndpointConfigArn": arn, "CreationTime": self._context.clock()}
        for variant in document["ProductionVariants"]:
            variant.setdefault("InitialVariantWeight", 1.0)
        try:
            self._context.store.create(KIND, name, document)
        except DocumentExistsError as error:
            raise ValidationError(
                f'Cannot create already existing endpoint configuration "{arn}".'
            ) from error
        set_tags(self._context, arn, request.get("Tags"))
        return {"EndpointConfigArn": arn}

    def describe(self, request: Request) -> Answer:
        return self.find(request["EndpointConfigName"])

    def delete(self, request: Request) -> Answer:
        """A configuration in service can be deleted, as on AWS; its endpoint goes on but cannot be updated
        any more.
        """
        arn = self._context.arn(KIND, request["EndpointConfigName"])
        if not self._context.store.delete(KIND, request["EndpointConfigName"]):
            raise ValidationError(f'Could not find endpoint configuration "{arn}".')
        forget_tags(self._context, arn)
        return {}

    def list(self, request: Request) -> Answer:
        configs, token = select(self._context.store.list(KIND), request, name="EndpointConfigName")
        members = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return {
            "EndpointConfigs": [{key: item[key] for key in members} for item in configs],
            "NextToken": token,
        }

    def find(self, name: str) -> Document:
        """The configuration's document. Raises ValidationError where there is none."""
        document = self._context.store.get(KIND, name)
        if document is None:
            raise ValidationError(f'Could not find endpoint configuration "{self._context.arn(KIND, name)}".')
        return document

    def _check(self, request: Request) -> None:
        for member, what in _NOT_HOSTED.items():
            if member in request:
                raise ValidationError(f"This runtime has no {what}: leave out {member}.")
        names = [variant["VariantName"] for variant in request["ProductionVariants"]]
        if len(set(names)) < len(names):
            raise ValidationError(f"Each variant needs a name of its own, got {', '.join(names)}.")
        for variant in request["ProductionVariants"]:
            self._check_variant(variant)
        if not any(variant.get("InitialVariantWeight", 1.0) for variant in request["ProductionVariants"]):
            raise ValidationError("At least one variant needs an InitialVariantWeight above 0.")

    def _check_variant(self, variant: Document) -> None:
        name = variant["VariantName"]
        if "ServerlessConfig" in variant:
            raise ValidationError(
                f"This runtime has no serverless variants: give {name} an InstanceType instead."
            )
        if "ModelName" not in variant:
            raise ValidationError(
                f"This runtime has no inference components: the variant {name} needs a ModelName."
            )
        if "InstanceType" not in variant or "InitialInstanceCount" not in variant:
            raise ValidationError(f"The variant {name} needs an InstanceType and an InitialInstanceCount.")
        self._models.find(variant["ModelName"])
