"""Models through boto3: what CreateModel checks, and the texts that clients match on."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import IMAGE, UNKNOWN_IMAGE, HostingClient, unique
from tests.local_sagemaker.runtime_process import RuntimeProcess


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


def create(hosting: HostingClient, **container: Any) -> str:
    name = unique("model")
    container = {"Image": IMAGE, "ModelDataUrl": hosting.upload("one"), **container}
    hosting.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=hosting.role_arn, PrimaryContainer=container
    )
    return name


def test_a_model_is_described_as_it_was_created(hosting: HostingClient) -> None:
    name = create(hosting, Environment={"SAGEMAKER_PROGRAM": "inference.py"})
    response = hosting.sagemaker.describe_model(ModelName=name)
    assert response["ModelArn"] == f"arn:aws:sagemaker:us-east-1:123456789012:model/{name}"
    assert response["PrimaryContainer"]["Image"] == IMAGE
    assert response["PrimaryContainer"]["Environment"] == {"SAGEMAKER_PROGRAM": "inference.py"}
    assert response["ExecutionRoleArn"] == hosting.role_arn


def test_names_are_unique(hosting: HostingClient) -> None:
    name = create(hosting)
    with pytest.raises(ClientError, match="Cannot create already existing model") as error:
        hosting.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=hosting.role_arn, PrimaryContainer={"Image": IMAGE}
        )
    assert error.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize("place", ["s3://{bucket}/no/such/model.tar.gz", "s3://no-such-bucket/model.tar.gz"])
def test_model_data_must_exist(hosting: HostingClient, place: str) -> None:
    uri = place.format(bucket=hosting.bucket)
    with pytest.raises(ClientError, match=f"Could not find model data at {uri}"):
        create(hosting, ModelDataUrl=uri)


def test_an_uncompressed_prefix_is_model_data_too(hosting: HostingClient) -> None:
    key = f"models/{unique('plain')}/settings.json"
    hosting.s3.put_object(Bucket=hosting.bucket, Key=key, Body=b"{}")
    source = {
        "S3Uri": f"s3://{hosting.bucket}/{key.rpartition('/')[0]}/",
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    name = unique("model")
    container = {"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}}
    hosting.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=hosting.role_arn, PrimaryContainer=container
    )
    described = hosting.sagemaker.describe_model(ModelName=name)
    assert described["PrimaryContainer"]["ModelDataSource"]["S3DataSource"] == source


def test_an_image_without_environment_is_refused_by_name(hosting: HostingClient) -> None:
    with pytest.raises(ClientError, match="nobody-knows-this") as error:
        create(hosting, Image=UNKNOWN_IMAGE)
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_pipeline_of_containers_is_refused(hosting: HostingClient) -> None:
    with pytest.raises(ClientError, match="exactly one"):
        hosting.sagemaker.create_model(
            ModelName=unique("model"), ExecutionRoleArn=hosting.role_arn, Containers=[{"Image": IMAGE}] * 2
        )


def test_a_missing_model_is_a_validation_exception(hosting: HostingClient) -> None:
    for call in (hosting.sagemaker.describe_model, hosting.sagemaker.delete_model):
        with pytest.raises(ClientError, match="Could not find model") as error:
            call(ModelName="nobody")
        assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_deleted_model_has_no_tags(hosting: HostingClient) -> None:
    name = unique("model")
    arn = hosting.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=hosting.role_arn,
        PrimaryContainer={"Image": IMAGE},
        Tags=[{"Key": "run", "Value": "one"}],
    )["ModelArn"]
    assert hosting.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "run", "Value": "one"}]
    hosting.sagemaker.delete_model(ModelName=name)
    with pytest.raises(ClientError, match="Could not find model"):
        hosting.sagemaker.describe_model(ModelName=name)


def test_lists_are_filtered_sorted_and_paged(hosting: HostingClient) -> None:
    prefix = unique("paged")
    names = [f"{prefix}-{number:02}" for number in range(12)]
    for name in names:
        hosting.sagemaker.create_model(
            ModelName=name, ExecutionRoleArn=hosting.role_arn, PrimaryContainer={"Image": IMAGE}
        )
    first = hosting.sagemaker.list_models(NameContains=prefix, SortBy="Name", SortOrder="Ascending")
    assert [item["ModelName"] for item in first["Models"]] == names[:10]
    pages = hosting.sagemaker.get_paginator("list_models").paginate(NameContains=prefix, MaxResults=5)
    found = [item["ModelName"] for page in pages for item in page["Models"]]
    assert found == names[::-1]
    with pytest.raises(ClientError, match="NextToken"):
        hosting.sagemaker.list_models(NextToken="made up")
