"""Before anything is paid: an endpoint that could not be updated, or not be put back, is found in `plan`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.aws.s3 import split_uri
from retraining.deployment.readiness import check_endpoint
from retraining.errors import CandidateError, DeploymentError

from tests.plugins.models import deploy, deployment_request, put_model


@pytest.fixture
def name(aws: Aws) -> Iterator[str]:
    name = f"ready-{uuid.uuid4().hex[:6]}"
    yield name
    if aws.sagemaker.list_endpoints(NameContains=name)["Endpoints"]:
        aws.sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture
def served(name: str, aws: Aws) -> Any:
    """The request of the model in service."""
    request = deployment_request(f"{name}-old", name, put_model(aws.s3, f"{name}/model.tar.gz", "woof"))
    deploy(request)
    return request


def test_a_configuration_deleted_by_hand_is_made_again(name: str, served: Any, aws: Aws) -> None:
    planned = deployment_request(f"{name}-new", name, "s3://later/model.tar.gz")
    check_endpoint(aws, planned, name)  # nothing to do
    aws.sagemaker.delete_endpoint_config(EndpointConfigName=f"{name}-old")
    check_endpoint(aws, planned, name)
    described = aws.sagemaker.describe_endpoint_config(EndpointConfigName=f"{name}-old")
    [variant] = described["ProductionVariants"]
    assert (variant["ModelName"], variant["InitialInstanceCount"]) == (f"{name}-old", 1)

    new = deployment_request(f"{name}-new", name, put_model(aws.s3, f"{name}/new/model.tar.gz", "wuff"))
    assert deploy(new)["previous"] == f"{name}-old"


def test_what_cannot_be_restored_is_explained(name: str, served: Any, aws: Aws) -> None:
    planned = deployment_request(f"{name}-new", name, "s3://later/model.tar.gz")
    bucket, key = split_uri(served["Model"]["PrimaryContainer"]["ModelDataUrl"])
    aws.s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(CandidateError, match="no longer in S3"):
        check_endpoint(aws, planned, name)
    aws.sagemaker.delete_endpoint_config(EndpointConfigName=f"{name}-old")
    aws.sagemaker.delete_model(ModelName=f"{name}-old")
    with pytest.raises(DeploymentError, match="delete the endpoint to start anew"):
        check_endpoint(aws, planned, name)


def test_without_an_endpoint_there_is_nothing_to_check(name: str, aws: Aws) -> None:
    check_endpoint(aws, deployment_request(f"{name}-new", name, "s3://later/model.tar.gz"), name)
