"""Challenger and champion: the model that this run trained, and the one that the endpoint serves now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, primary_container
from retraining.aws.s3 import exists
from retraining.config.pipeline import Pipeline
from retraining.errors import CandidateError
from retraining.planning.evaluation import Request, with_models
from retraining.registry.registry import LIVE_CONFIG, REJECTED, artifact_of, package_of, previous_live

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import DescribeEndpointOutputTypeDef

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Champion:
    """The model to compare with. `artifact` is the URI of its model.tar.gz; `package` the ARN of its version
    in the registry, if it is there.
    """

    endpoint: str
    config: str
    model: str | None
    artifact: str
    package: str | None


@dataclass(frozen=True)
class _Served:
    """The model in service; one that is rejected in the registry failed there, or a person rejected it."""

    model: Champion
    rejected: bool


def evaluation_request(
    planned: Request, deployment: Request, training: Mapping[str, Any], pipeline: Pipeline, aws: Aws
) -> dict[str, Any]:
    """Put this run's model and the one in service into the planned evaluation.

    Returns `{request, challenger, champion, replaces}`; `champion` is None where no model is served that is
    worth a comparison, `replaces` is the configuration in service, champion or not, or None.
    Raises CandidateError where the model in service cannot be compared with.
    """
    challenger = str(training["model_artifact"])
    endpoint = deployment["Endpoint"]["EndpointName"]
    served = _in_service(endpoint, pipeline.package_group, aws)
    champion = _champion(served, pipeline.package_group, challenger, aws) if served else None
    artifacts = {"challenger": challenger}
    if champion is None:
        log.info("No champion: the endpoint %s serves no other model that is not rejected", endpoint)
    else:
        log.info("The champion is %s of the endpoint %s: %s", champion.config, endpoint, champion.artifact)
        artifacts["champion"] = champion.artifact
    return {
        "request": with_models(planned, artifacts),
        "challenger": challenger,
        "champion": asdict(champion) if champion else None,
        "replaces": served.model.config if served else None,
    }


def _champion(served: _Served, group: str, challenger: str, aws: Aws) -> Champion | None:
    """The model in service, unless it is rejected.

    Where a run is repeated whose own model went live already, it is the model that was live before, so that
    the repetition compares what the run compared. Raises CandidateError where the model's data are gone.
    """
    endpoint = served.model.endpoint
    champion = None if served.rejected else served.model
    if served.model.artifact == challenger:
        log.info("The endpoint %s serves this run's model already", endpoint)
        champion = _predecessor(endpoint, group, challenger, aws)
    if champion is not None and not exists(aws.s3, champion.artifact):
        raise CandidateError(
            f"The endpoint {endpoint} serves {champion.config}, whose model {champion.artifact} is no longer "
            "in S3, so nothing can be compared with it. Restore the object, or delete the endpoint to start "
            "without a champion."
        )
    return champion


def _in_service(endpoint: str, group: str, aws: Aws) -> _Served | None:
    """The model behind most of the endpoint's traffic, or None. Raises CandidateError where it is unknown."""
    description = _endpoint(endpoint, aws)
    if description is None or not _serves(description):
        return None
    config, model = description["EndpointConfigName"], None
    package: Mapping[str, Any] | None
    served = _served_model(description, aws)
    if served is None:
        package = _package_live_as(config, group, aws)
        artifact = artifact_of(package) if package else None
    else:
        model, container = served
        package, artifact = _data(container, group, aws)
    if artifact is None:
        raise CandidateError(
            f"The endpoint {endpoint} serves {config}, but where its model's data are is not known any more: "
            f"the endpoint configuration or the model was deleted, and the registry's group {group} does not "
            "know it. Delete the endpoint to start without a champion."
        )
    if package is None:
        return _Served(Champion(endpoint, config, model, artifact, None), rejected=False)
    champion = Champion(endpoint, config, model, artifact, package["ModelPackageArn"])
    return _Served(champion, rejected=package["ModelApprovalStatus"] == REJECTED)


def _endpoint(endpoint: str, aws: Aws) -> DescribeEndpointOutputTypeDef | None:
    from botocore.exceptions import ClientError

    try:
        return aws.sagemaker.describe_endpoint(EndpointName=endpoint)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException":
            return None
        raise


def _serves(description: DescribeEndpointOutputTypeDef) -> bool:
    """Whether requests are answered: an endpoint may also be Failed after an update, with instances left."""
    if description["EndpointStatus"] in {"Creating", "Deleting", "OutOfService"}:
        return False
    return any(variant.get("CurrentInstanceCount") for variant in description.get("ProductionVariants", []))


def _served_model(
    description: DescribeEndpointOutputTypeDef, aws: Aws
) -> tuple[str, Mapping[str, Any]] | None:
    """Name and container of the model with the most traffic; None where its description was deleted."""
    from botocore.exceptions import ClientError

    weights = {v["VariantName"]: v.get("CurrentWeight", 0) for v in description["ProductionVariants"]}
    try:
        config = aws.sagemaker.describe_endpoint_config(EndpointConfigName=description["EndpointConfigName"])
        variant = max(config["ProductionVariants"], key=lambda v: weights.get(v["VariantName"], 0))
        model = aws.sagemaker.describe_model(ModelName=variant["ModelName"])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationException":
            return None
        raise
    return variant["ModelName"], primary_container(model)


def _data(container: Mapping[str, Any], group: str, aws: Aws) -> tuple[Mapping[str, Any] | None, str | None]:
    """Package and artifact of a model's container."""
    if named := container.get("ModelPackageName"):
        package: Mapping[str, Any] = aws.sagemaker.describe_model_package(ModelPackageName=named)
        return package, artifact_of(package)
    artifact = archive_of(container)
    return (package_of(aws, group, artifact) if artifact else None), artifact


def _package_live_as(config: str, group: str, aws: Aws) -> Mapping[str, Any] | None:
    """The newest package, if it is the one that went live under this endpoint configuration."""
    package = previous_live(aws, group, None)
    live_as = package["CustomerMetadataProperties"].get(LIVE_CONFIG) if package else None
    return package if live_as == config else None


def _predecessor(endpoint: str, group: str, artifact: str, aws: Aws) -> Champion | None:
    package = previous_live(aws, group, artifact)
    earlier = artifact_of(package) if package else None
    if package is None or earlier is None:
        return None
    config = package["CustomerMetadataProperties"][LIVE_CONFIG]
    return Champion(endpoint, config, None, earlier, package["ModelPackageArn"])
