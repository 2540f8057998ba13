"""Tags of SageMaker resources, over the API."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.conftest import MakeRuntime

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-cpu-py312"


@pytest.fixture
def resource(sagemaker: Any, role_arn: str, request: pytest.FixtureRequest) -> str:
    """A new endpoint configuration of a model, tagged `team=vision`; its ARN."""
    name = request.node.name.replace("_", "-")[-60:].strip("-[]")
    return _tagged_resource(sagemaker, role_arn, name)


def _tagged_resource(sagemaker: Any, role_arn: str, name: str) -> str:
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role_arn, PrimaryContainer={"Image": IMAGE})
    variant = {
        "VariantName": "v",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.xlarge",
    }
    response = sagemaker.create_endpoint_config(
        EndpointConfigName=name, ProductionVariants=[variant], Tags=[{"Key": "team", "Value": "vision"}]
    )
    arn: str = response["EndpointConfigArn"]
    return arn


def _tags(sagemaker: Any, arn: str) -> dict[str, str]:
    pages = sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def test_tags_of_creation_are_listed(sagemaker: Any, resource: str) -> None:
    assert _tags(sagemaker, resource) == {"team": "vision"}


def test_adding_replaces_by_key(sagemaker: Any, resource: str) -> None:
    response = sagemaker.add_tags(
        ResourceArn=resource, Tags=[{"Key": "team", "Value": "cats"}, {"Key": "run", "Value": "7"}]
    )
    assert {tag["Key"]: tag["Value"] for tag in response["Tags"]} == {"team": "cats", "run": "7"}
    assert _tags(sagemaker, resource) == {"team": "cats", "run": "7"}


def test_deleting(sagemaker: Any, resource: str) -> None:
    sagemaker.delete_tags(ResourceArn=resource, TagKeys=["team", "absent"])
    assert _tags(sagemaker, resource) == {}


def test_tags_come_in_pages(sagemaker: Any, resource: str) -> None:
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(49)]
    sagemaker.add_tags(ResourceArn=resource, Tags=tags)
    first = sagemaker.list_tags(ResourceArn=resource, MaxResults=50)
    assert len(first["Tags"]) == 50
    assert "NextToken" not in first
    assert len(_tags(sagemaker, resource)) == 50


def test_more_than_fifty_tags_are_refused(sagemaker: Any, resource: str) -> None:
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(50)]
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        sagemaker.add_tags(ResourceArn=resource, Tags=tags)
    assert _tags(sagemaker, resource) == {"team": "vision"}


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sagemaker:us-east-1:123456789012:model/nobody",
        "arn:aws:sagemaker:us-east-1:999999999999:model/nobody",
        "arn:aws:sagemaker:us-east-1:123456789012:tags/x",
    ],
)
def test_unknown_resource(sagemaker: Any, arn: str) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker.list_tags(ResourceArn=arn)
    assert caught.value.response["Error"]["Code"] in {"ResourceNotFound", "ValidationException"}


def test_tags_survive_a_crash(make_runtime: MakeRuntime, role_arn: str) -> None:
    runtime = make_runtime()
    arn = _tagged_resource(runtime.client("sagemaker"), role_arn, "kept")
    runtime.kill()
    runtime.start()
    assert _tags(runtime.client("sagemaker"), arn) == {"team": "vision"}
