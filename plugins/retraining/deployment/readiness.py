"""What would keep a run from deploying in the end, found before it pays for anything."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from retraining.aws.clients import Aws
from retraining.aws.responses import or_none
from retraining.deployment.endpoint import describe_config, describe_endpoint
from retraining.errors import DeploymentError
from retraining.evaluation.champion import find_candidates
from retraining.runs.results import DeploymentRequest

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        CreateEndpointConfigInputTypeDef,
        DescribeEndpointOutputTypeDef,
        ProductionVariantTypeDef,
    )

log = logging.getLogger(__name__)


def check_endpoint(aws: Aws, planned: DeploymentRequest, group: str) -> None:
    """Check that the model in service can be compared with and, if need be, be put back.

    Restores its endpoint configuration where that was deleted by hand. Raises DeploymentError where it cannot
    be restored, and CandidateError if the model's archive is unknown or was deleted.
    """
    endpoint = planned["Endpoint"]["EndpointName"]
    description = describe_endpoint(aws, endpoint)
    if description is None or description["EndpointStatus"] in {"Creating", "Deleting"}:
        return
    if (
        description.get("ProductionVariants")
        and describe_config(aws, description["EndpointConfigName"]) is None
    ):
        _restore_config(aws, planned, description)
    find_candidates("", endpoint, group, aws)


def _restore_config(aws: Aws, planned: DeploymentRequest, description: DescribeEndpointOutputTypeDef) -> None:
    """Make the deleted configuration again: this product gives it and its model one name."""
    endpoint, name = description["EndpointName"], description["EndpointConfigName"]
    if or_none(partial(aws.sagemaker.describe_model, ModelName=name)) is None:
        raise DeploymentError(
            f"The endpoint {endpoint} serves {name}, but this endpoint configuration and its model were "
            "deleted, so no update could be rolled back: delete the endpoint to start anew, or make both "
            "again."
        )
    [planned_variant] = planned["EndpointConfig"]["ProductionVariants"]
    [variant] = description["ProductionVariants"]
    count = variant.get("CurrentInstanceCount") or planned_variant["InitialInstanceCount"]
    restored: ProductionVariantTypeDef = {**planned_variant, "ModelName": name, "InitialInstanceCount": count}
    request: CreateEndpointConfigInputTypeDef = {
        **planned["EndpointConfig"],
        "EndpointConfigName": name,
        "ProductionVariants": [restored],
    }
    aws.sagemaker.create_endpoint_config(**request)
    log.warning(
        "The endpoint configuration %s, which %s serves with, had been deleted. It was made again, with this "
        "run's instance type %s.",
        name,
        endpoint,
        planned_variant["InstanceType"],
    )
