"""The model registry through boto3: groups, versions, approval, and models made of approved packages."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.conftest import BUCKET, ROLE_ARN, MakeRuntime
from tests.local_sagemaker.hosting_support import IMAGE, UNKNOWN_IMAGE, HostingClient, unique
from tests.local_sagemaker.runtime_process import RuntimeProcess

ARN = "arn:aws:sagemaker:us-east-1:123456789012"
MARK = "s3://{bucket}/evaluation/metrics.json"


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def data(hosting: HostingClient) -> str:
    """A model's archive in S3."""
    return hosting.upload("one")


@pytest.fixture
def group(hosting: HostingClient) -> str:
    name = unique("group")
    hosting.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    return name


def specification(data: str, image: str = IMAGE, **members: Any) -> dict[str, Any]:
    return {
        "Containers": [{"Image": image, "ModelDataUrl": data, **members}],
        "SupportedContentTypes": ["application/json"],
        "SupportedResponseMIMETypes": ["application/json"],
    }


def register(hosting: HostingClient, group: str, data: str, **members: Any) -> str:
    """Register a version; its ARN."""
    request = {
        "ModelPackageGroupName": group,
        "InferenceSpecification": specification(data),
        **members,
    }
    arn: str = hosting.sagemaker.create_model_package(**request)["ModelPackageArn"]
    return arn


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


def test_a_group_is_described_listed_and_deleted(hosting: HostingClient) -> None:
    name = unique("described")
    arn = hosting.sagemaker.create_model_package_group(
        ModelPackageGroupName=name,
        ModelPackageGroupDescription="Dogs by breed",
        Tags=[{"Key": "team", "Value": "pets"}],
    )["ModelPackageGroupArn"]
    assert arn == f"{ARN}:model-package-group/{name}"
    for name_or_arn in (name, arn):
        response = hosting.sagemaker.describe_model_package_group(ModelPackageGroupName=name_or_arn)
        assert response["ModelPackageGroupArn"] == arn
        assert response["ModelPackageGroupDescription"] == "Dogs by breed"
        assert response["ModelPackageGroupStatus"] == "Completed"
    listed = hosting.sagemaker.list_model_package_groups(NameContains=name)["ModelPackageGroupSummaryList"]
    assert [item["ModelPackageGroupName"] for item in listed] == [name]
    assert hosting.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "pets"}]
    with pytest.raises(ClientError, match="already exists") as error:
        hosting.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    assert code(error) == "ValidationException"
    hosting.sagemaker.delete_model_package_group(ModelPackageGroupName=name)
    with pytest.raises(ClientError, match=f"ModelPackageGroup {arn} does not exist") as error:
        hosting.sagemaker.describe_model_package_group(ModelPackageGroupName=name)
    assert code(error) == "ValidationException"


def test_a_version_is_described_as_it_was_registered(hosting: HostingClient, group: str, data: str) -> None:
    source = {"ContentType": "application/json", "S3Uri": MARK.format(bucket=hosting.bucket)}
    facts = {
        "ModelPackageDescription": "challenger of week 47",
        "ModelMetrics": {"ModelQuality": {"Statistics": source}},
        "DriftCheckBaselines": {"ModelQuality": {"Statistics": source}},
        "CustomerMetadataProperties": {"fingerprint": "0f3a", "accuracy": "0.91"},
        "MetadataProperties": {"CommitId": "abc", "GeneratedBy": f"{ARN}:training-job/week-47"},
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
    }
    arn = register(hosting, group, data, **facts)
    assert arn == f"{ARN}:model-package/{group}/1"
    for name_or_arn in (arn, f"{group}/1"):
        response = hosting.sagemaker.describe_model_package(ModelPackageName=name_or_arn)
        assert {member: response[member] for member in facts} == facts
        assert response["InferenceSpecification"] == specification(data)
        assert (response["ModelPackageGroupName"], response["ModelPackageVersion"]) == (group, 1)
        assert response["ModelApprovalStatus"] == "PendingManualApproval"
        assert response["ModelPackageStatus"] == "Completed"
        assert "ModelPackageName" not in response
    batch = hosting.sagemaker.batch_describe_model_package(ModelPackageArnList=[arn, f"{arn}0"])
    assert list(batch["ModelPackageSummaries"]) == [arn]
    assert list(batch["BatchDescribeModelPackageErrorMap"]) == [f"{arn}0"]


def test_version_numbers_are_never_reused(hosting: HostingClient, group: str, data: str) -> None:
    arns = [register(hosting, f"{ARN}:model-package-group/{group}", data) for _ in range(2)]
    hosting.sagemaker.delete_model_package(ModelPackageName=arns[-1])
    with pytest.raises(ClientError, match=f"ModelPackage {arns[-1]} does not exist") as error:
        hosting.sagemaker.describe_model_package(ModelPackageName=arns[-1])
    assert code(error) == "ValidationException"
    assert register(hosting, group, data) == f"{ARN}:model-package/{group}/3"
    with pytest.raises(ClientError, match="still contains 2 model packages") as error:
        hosting.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    assert code(error) == "ConflictException"


def test_a_retried_request_registers_one_version(hosting: HostingClient, group: str, data: str) -> None:
    arns = {register(hosting, group, data, ClientToken=unique("token")[:36]) for _ in range(2)}
    assert len(arns) == 2
    token = unique("same")
    assert len({register(hosting, group, data, ClientToken=token) for _ in range(2)}) == 1


def test_approval_and_metadata_are_updated(hosting: HostingClient, group: str, data: str) -> None:
    arn = register(hosting, group, data, CustomerMetadataProperties={"keep": "1", "drop": "2"})
    hosting.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus="Approved",
        ApprovalDescription="0.91 against 0.88",
        CustomerMetadataProperties={"gate": "passed"},
        CustomerMetadataPropertiesToRemove=["drop"],
    )
    response = hosting.sagemaker.describe_model_package(ModelPackageName=arn)
    assert response["ModelApprovalStatus"] == "Approved"
    assert response["ApprovalDescription"] == "0.91 against 0.88"
    assert response["CustomerMetadataProperties"] == {"keep": "1", "gate": "passed"}
    assert response["LastModifiedTime"] >= response["CreationTime"]
    with pytest.raises(ClientError, match="does not exist"):
        hosting.sagemaker.update_model_package(ModelPackageArn=f"{arn}0", ModelApprovalStatus="Approved")


def test_versions_are_filtered_sorted_and_paged(hosting: HostingClient, group: str, data: str) -> None:
    statuses = ["Approved", "Rejected", "Approved", "PendingManualApproval"]
    arns = [register(hosting, group, data, ModelApprovalStatus=status) for status in statuses]

    def listed(**request: Any) -> list[str]:
        pages = hosting.sagemaker.get_paginator("list_model_packages").paginate(**request)
        return [item["ModelPackageArn"] for page in pages for item in page["ModelPackageSummaryList"]]

    assert listed(ModelPackageGroupName=group, MaxResults=3) == arns[::-1]
    assert listed(ModelPackageGroupName=group, ModelApprovalStatus="Approved") == [arns[2], arns[0]]
    oldest_first = {"SortBy": "CreationTime", "SortOrder": "Ascending"}
    assert listed(ModelPackageGroupName=group, **oldest_first) == arns
    assert not set(arns) & set(listed())
    assert set(arns) <= set(listed(ModelPackageType="Versioned"))
    latest = hosting.sagemaker.list_model_packages(
        ModelPackageGroupName=group, ModelApprovalStatus="Approved", MaxResults=1
    )["ModelPackageSummaryList"]
    assert [item["ModelPackageVersion"] for item in latest] == [3]
    assert "ModelPackageName" not in latest[0]


def test_a_package_on_its_own_has_a_name(hosting: HostingClient, data: str) -> None:
    name = unique("alone")
    request = {"ModelPackageName": name, "InferenceSpecification": specification(data)}
    arn = hosting.sagemaker.create_model_package(**request)["ModelPackageArn"]
    assert arn == f"{ARN}:model-package/{name}"
    response = hosting.sagemaker.describe_model_package(ModelPackageName=name)
    assert response["ModelPackageName"] == name
    assert "ModelApprovalStatus" not in response
    with pytest.raises(ClientError, match="already exists") as error:
        hosting.sagemaker.create_model_package(**request)
    assert code(error) == "ConflictException"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ModelPackageName": "both"}, "Both ModelPackageName and ModelPackageGroupName"),
        ({"ModelPackageGroupName": "no-such-group"}, "no-such-group does not exist"),
        (
            {"InferenceSpecification": specification("s3://no-such-bucket/m.tar.gz")},
            "Could not find model data",
        ),
        ({"InferenceSpecification": specification("s3://b/m", UNKNOWN_IMAGE)}, "nobody-knows-this"),
    ],
)
def test_a_package_that_cannot_be_deployed_is_refused(
    hosting: HostingClient, group: str, data: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError, match=words) as error:
        register(hosting, group, data, **change)
    assert code(error) == "ValidationException"
    assert not hosting.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]


def test_a_model_of_an_approved_package_serves(hosting: HostingClient, group: str, data: str) -> None:
    members = specification(data, Environment={"VARIABLE": "package", "OTHER": "kept"})
    arn = register(hosting, group, data, InferenceSpecification=members)
    model = unique("of-package")
    request = {
        "ModelName": model,
        "ExecutionRoleArn": hosting.role_arn,
        "PrimaryContainer": {"ModelPackageName": arn, "Environment": {"VARIABLE": "model"}},
    }
    with pytest.raises(ClientError, match="PendingManualApproval") as error:
        hosting.sagemaker.create_model(**request)
    assert code(error) == "ValidationException"
    hosting.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    hosting.sagemaker.create_model(**request)
    described = hosting.sagemaker.describe_model(ModelName=model)["PrimaryContainer"]
    assert described == request["PrimaryContainer"]
    hosting.sagemaker.delete_model_package(ModelPackageName=arn)
    endpoint = hosting.endpoint(hosting.config(model))
    response = hosting.invoke(endpoint, {"value": 3})
    assert (response["value"], response["version"], response["variable"]) == (3.0, "one", "model")
    hosting.delete(endpoint)


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"ModelPackageName": f"{ARN}:model-package/nobody/1"}, "does not exist"),
        ({"ModelPackageName": "nobody/1", "Image": IMAGE}, "either an Image or a ModelPackageName"),
        ({"ModelPackageName": "nobody/1", "ModelDataUrl": "s3://b/m.tar.gz"}, "its own model data"),
    ],
)
def test_a_model_needs_one_source(hosting: HostingClient, container: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as error:
        hosting.sagemaker.create_model(
            ModelName=unique("refused"), ExecutionRoleArn=hosting.role_arn, PrimaryContainer=container
        )
    assert code(error) == "ValidationException"


def test_an_additional_specification_is_chosen_by_name(hosting: HostingClient, group: str, data: str) -> None:
    arn = register(hosting, group, data, ModelApprovalStatus="Approved")
    hosting.sagemaker.update_model_package(
        ModelPackageArn=arn,
        AdditionalInferenceSpecificationsToAdd=[{"Name": "other", **specification(data)}],
    )
    for name, words in (("other", None), ("third", "no additional inference specification 'third'")):
        request = {
            "ModelName": unique("chosen"),
            "ExecutionRoleArn": hosting.role_arn,
            "PrimaryContainer": {"ModelPackageName": arn, "InferenceSpecificationName": name},
        }
        if words is None:
            hosting.sagemaker.create_model(**request)
        else:
            with pytest.raises(ClientError, match=words):
                hosting.sagemaker.create_model(**request)


def test_the_registry_survives_a_restart(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    hosting = HostingClient(runtime, BUCKET, ROLE_ARN)
    hosting.s3.create_bucket(Bucket=BUCKET)
    hosting.sagemaker.create_model_package_group(ModelPackageGroupName="lasting")
    arn = register(hosting, "lasting", hosting.upload("one"), ModelApprovalStatus="Approved")
    runtime.kill()
    runtime.start()
    response = hosting.sagemaker.describe_model_package(ModelPackageName=arn)
    assert response["ModelApprovalStatus"] == "Approved"
    assert register(hosting, "lasting", hosting.upload("two")) == f"{ARN}:model-package/lasting/2"
