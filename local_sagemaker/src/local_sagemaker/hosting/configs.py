"""Endpoint configurations: an endpoint's production variants, with models, instances and weights."""

from __future__ import annotations

from local_sagemaker.context import Context, Request, Response
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.models import Models
from local_sagemaker.resources import ResourceKind, Resources
from local_sagemaker.store import Document

_ENDPOINT_CONFIG = ResourceKind(
    resource_type="endpoint-config",
    prefix="EndpointConfig",
    listed_as="EndpointConfigs",
    summary=("EndpointConfigName", "EndpointConfigArn", "CreationTime"),
    taken='Cannot create already existing endpoint configuration "{arn}".',
    missing='Could not find endpoint configuration "{arn}".',
)

_NOT_HOSTED = {
    "AsyncInferenceConfig": "asynchronous inference",
    "ExplainerConfig": "explainers",
    "ShadowProductionVariants": "shadow variants",
}


class EndpointConfigs(Resources):
    """The endpoint configuration operations.

    A configuration in service can be deleted, as on AWS; its endpoint keeps serving but cannot be updated.
    """

    def __init__(self, context: Context, models: Models) -> None:
        super().__init__(_ENDPOINT_CONFIG, context)
        self._models = models

    def create(self, request: Request) -> Response:
        self._check(request)
        document = {key: value for key, value in request.items() if key != "Tags"}
        document["CreationTime"] = self._context.clock()
        for variant in document["ProductionVariants"]:
            variant.setdefault("InitialVariantWeight", 1.0)
        return self.add(request["EndpointConfigName"], document, request.get("Tags"))

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
