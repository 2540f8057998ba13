"""Challenger and champion: the model that this run trained, and the one that the endpoint serves."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, or_none, primary_container
from retraining.aws.s3 import exists
from retraining.errors import CandidateError
from retraining.registry.registry import LIVE_CONFIG, REJECTED, artifact_of, package_of, previous_live
from retraining.runs.results import Candidates, Champion

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        DescribeEndpointOutputTypeDef,
        DescribeModelPackageOutputTypeDef,
    )

log = logging.getLogger(__name__)


def find_candidates(challenger: str, endpoint: str, group: str, aws: Aws) -> Candidates:
    """The archive `challenger` and the champion at the endpoint.

    A model that is rejected in the registry `group` failed in service, or a person rejected it: it is no
    champion, but its configuration is still the one that a deployment replaces. If the endpoint serves the
    challenger already (the run is repeated), the champion is the model that was live before it, so that the
    comparison is the same again.
    Raises CandidateError if the archive of the model in service is unknown, or was deleted.
    """
    description = or_none(partial(aws.sagemaker.describe_endpoint, EndpointName=endpoint))
    if description is None or not _serves(description):
        log.info("No champion: the endpoint %s serves no model", endpoint)
        return {"challenger": challenger, "champion": None, "replaces": None}
    served, rejected = _in_service(description, group, aws)
    champion = None if rejected else served
    if served["artifact"] == challenger:
        log.info("The endpoint %s serves this run's model already", endpoint)
        champion = _predecessor(endpoint, group, challenger, aws)
    if champion is None:
        log.info("No champion: the endpoint %s serves no other model that is not rejected", endpoint)
    elif not exists(aws.s3, champion["artifact"]):
        raise CandidateError(
            f"The endpoint {endpoint} serves {champion['config']}, whose model {champion['artifact']} is no "
            "longer in S3, so nothing can be compared with it. Restore the object, or delete the endpoint to "
            "start without a champion."
        )
    else:
        log.info(
            "The champion is %s at the endpoint %s: %s", champion["config"], endpoint, champion["artifact"]
        )
    return {"challenger": challenger, "champion": champion, "replaces": served["config"]}


def _in_service(description: DescribeEndpointOutputTypeDef, group: str, aws: Aws) -> tuple[Champion, bool]:
    """The model behind most of the endpoint's traffic, and whether it is rejected in the registry.

    Raises CandidateError if its archive is unknown.
    """
    endpoint, config = description["EndpointName"], description["EndpointConfigName"]
    served = _served_model(description, aws)
    if served is None:
        model, package = None, _package_live_as(config, group, aws)
        artifact = artifact_of(package) if package else None
    else:
        model, container = served
        package, artifact = _packaged(container, group, aws)
    if artifact is None:
        raise CandidateError(
            f"The endpoint {endpoint} serves {config}, but the archive of its model is unknown: the endpoint "
            f"configuration or the model was deleted, and the registry's group {group} has no version of it. "
            "Delete the endpoint to start without a champion."
        )
    champion: Champion = {
        "endpoint": endpoint,
        "config": config,
        "model": model,
        "artifact": artifact,
        "package": package["ModelPackageArn"] if package else None,
    }
    return champion, package is not None and package["ModelApprovalStatus"] == REJECTED


def _serves(description: DescribeEndpointOutputTypeDef) -> bool:
    """Whether the endpoint takes requests; one that is Failed after an update may still have instances."""
    if description["EndpointStatus"] in {"Creating", "Deleting", "OutOfService"}:
        return False
    return any(variant.get("CurrentInstanceCount") for variant in description.get("ProductionVariants", []))


def _served_model(
    description: DescribeEndpointOutputTypeDef, aws: Aws
) -> tuple[str, Mapping[str, Any]] | None:
    """Name and container of the model with the most traffic; None if it or its configuration was deleted."""
    weights = {v["VariantName"]: v.get("CurrentWeight", 0) for v in description["ProductionVariants"]}
    describe_config, describe_model = aws.sagemaker.describe_endpoint_config, aws.sagemaker.describe_model
    config = or_none(partial(describe_config, EndpointConfigName=description["EndpointConfigName"]))
    if config is None:
        return None
    variant = max(config["ProductionVariants"], key=lambda v: weights.get(v["VariantName"], 0))
    model = or_none(partial(describe_model, ModelName=variant["ModelName"]))
    return None if model is None else (variant["ModelName"], primary_container(model))


def _packaged(
    container: Mapping[str, Any], group: str, aws: Aws
) -> tuple[DescribeModelPackageOutputTypeDef | None, str | None]:
    """Package and archive of a model's container."""
    if named := container.get("ModelPackageName"):
        package = aws.sagemaker.describe_model_package(ModelPackageName=named)
        return package, artifact_of(package)
    artifact = archive_of(container)
    return (package_of(aws, group, artifact) if artifact else None), artifact


def _package_live_as(config: str, group: str, aws: Aws) -> DescribeModelPackageOutputTypeDef | None:
    """The version that went live last, if it did so with this endpoint configuration."""
    package = previous_live(aws, group, None)
    live_as = package["CustomerMetadataProperties"].get(LIVE_CONFIG) if package else None
    return package if live_as == config else None


def _predecessor(endpoint: str, group: str, artifact: str, aws: Aws) -> Champion | None:
    """The model that was live before the model of this archive."""
    package = previous_live(aws, group, artifact)
    previous = artifact_of(package) if package else None
    if package is None or previous is None:
        return None
    return {
        "endpoint": endpoint,
        "config": package["CustomerMetadataProperties"][LIVE_CONFIG],
        "model": None,
        "artifact": previous,
        "package": package["ModelPackageArn"],
    }
