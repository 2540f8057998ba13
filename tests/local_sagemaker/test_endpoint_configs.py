"""Endpoint configurations through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import HostingClient, unique, variant_of
from tests.local_sagemaker.runtime_process import RuntimeProcess


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def model(hosting: HostingClient) -> str:
    return hosting.model("one")


def test_a_configuration_is_described_as_it_was_created(hosting: HostingClient, model: str) -> None:
    name = hosting.config(model, instances=2)
    response = hosting.sagemaker.describe_endpoint_config(EndpointConfigName=name)
    assert response["EndpointConfigArn"].endswith(f":endpoint-config/{name}")
    assert response["ProductionVariants"] == [variant_of(model, instances=2)]


def test_the_default_weight_of_a_variant_is_one(hosting: HostingClient, model: str) -> None:
    variant = variant_of(model)
    del variant["InitialVariantWeight"]
    name = hosting.config(model, ProductionVariants=[variant])
    response = hosting.sagemaker.describe_endpoint_config(EndpointConfigName=name)
    assert response["ProductionVariants"][0]["InitialVariantWeight"] == 1.0


def test_names_are_unique(hosting: HostingClient, model: str) -> None:
    name = hosting.config(model)
    with pytest.raises(ClientError, match="Cannot create already existing endpoint configuration"):
        hosting.config(model, EndpointConfigName=name)


def test_a_variant_without_model_is_refused(hosting: HostingClient) -> None:
    with pytest.raises(ClientError, match="Could not find model") as error:
        hosting.config("nobody")
    assert error.value.response["Error"]["Code"] == "ValidationException"


def two_of_a_name(model: str) -> dict[str, Any]:
    return {"ProductionVariants": [variant_of(model, "A"), variant_of(model, "A")]}


def without_weight(model: str) -> dict[str, Any]:
    return {"ProductionVariants": [variant_of(model, weight=0.0)]}


def serverless(model: str) -> dict[str, Any]:
    settings = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
    return {"ProductionVariants": [{"VariantName": "A", "ModelName": model, "ServerlessConfig": settings}]}


def without_instances(model: str) -> dict[str, Any]:
    return {"ProductionVariants": [{"VariantName": "A", "ModelName": model}]}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (two_of_a_name, "a name of its own"),
        (without_weight, "above 0"),
        (serverless, "no serverless"),
        (without_instances, "InitialInstanceCount"),
    ],
)
def test_unsupported_configurations_are_refused(
    hosting: HostingClient, model: str, members: Any, reason: str
) -> None:
    with pytest.raises(ClientError, match=reason) as error:
        hosting.config(model, **members(model))
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_missing_configuration_is_a_validation_exception(hosting: HostingClient) -> None:
    for call in (hosting.sagemaker.describe_endpoint_config, hosting.sagemaker.delete_endpoint_config):
        with pytest.raises(ClientError, match="Could not find endpoint configuration") as error:
            call(EndpointConfigName="nobody")
        assert error.value.response["Error"]["Code"] == "ValidationException"


def test_configurations_are_listed_newest_first_and_deleted(hosting: HostingClient, model: str) -> None:
    prefix = unique("listed")
    names = [f"{prefix}-{number}" for number in range(3)]
    for name in names:
        hosting.config(model, EndpointConfigName=name)
    hosting.sagemaker.delete_endpoint_config(EndpointConfigName=names[1])
    found = hosting.sagemaker.list_endpoint_configs(NameContains=prefix)["EndpointConfigs"]
    assert [item["EndpointConfigName"] for item in found] == [names[2], names[0]]
