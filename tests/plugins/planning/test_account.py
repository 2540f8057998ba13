"""Network, encryption keys and tags: in every request, as SageMaker's model of its API has them."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.validate import ParamValidator
from pydantic import ValidationError
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline

from tests.plugins.plans import MakePlan, make_plan, source

__all__ = ["make_plan", "source"]  # fixtures

VPC = {"Subnets": ["subnet-0a", "subnet-0b"], "SecurityGroupIds": ["sg-01"]}
ACCOUNT: dict[str, Any] = {
    "network": {"subnets": VPC["Subnets"], "security_group_ids": VPC["SecurityGroupIds"], "isolation": True},
    "encryption": {"kms_key": "alias/outputs", "volume_key": "alias/volumes"},
    "tags": {"cost-centre": "42", "pipeline": "is ours"},
}


def valid(client: Any, operation: str, request: dict[str, Any]) -> None:
    shape = client.meta.service_model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_an_account_finds_its_settings_in_every_request(make_plan: MakePlan, aws: Aws) -> None:
    plan: Any = make_plan(of=ACCOUNT, data_capture=True)
    training, deployment = plan["training"], plan["deployment"]
    trials = plan["tuning"]["TrainingJobDefinition"]
    for job in (training, trials, deployment["Model"]):
        assert (job["VpcConfig"], job["EnableNetworkIsolation"]) == (VPC, True)
    for job in (training, trials):
        assert job["OutputDataConfig"]["KmsKeyId"] == "alias/outputs"
        assert job["ResourceConfig"]["VolumeKmsKeyId"] == "alias/volumes"
    evaluation = plan["evaluation"]
    assert evaluation["NetworkConfig"] == {"VpcConfig": VPC, "EnableNetworkIsolation": True}
    assert evaluation["ProcessingOutputConfig"]["KmsKeyId"] == "alias/outputs"
    assert evaluation["ProcessingResources"]["ClusterConfig"]["VolumeKmsKeyId"] == "alias/volumes"
    assert deployment["EndpointConfig"]["KmsKeyId"] == "alias/volumes"
    assert deployment["EndpointConfig"]["DataCaptureConfig"]["KmsKeyId"] == "alias/outputs"
    tagged = [plan["tuning"], training, evaluation, *deployment.values(), *plan["alarms"]]
    for request in tagged:
        tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        assert (tags["cost-centre"], tags["pipeline"]) == ("42", "dog_breed")
    for operation, request in {
        "CreateHyperParameterTuningJob": plan["tuning"],
        "CreateTrainingJob": training,
        "CreateProcessingJob": evaluation,
        "CreateEndpointConfig": deployment["EndpointConfig"],
        "CreateEndpoint": deployment["Endpoint"],
    }.items():
        valid(aws.sagemaker, operation, request)


def test_what_is_left_out_is_in_no_request(make_plan: MakePlan) -> None:
    text = str(make_plan(data_capture=True))
    assert not [word for word in ("VpcConfig", "Kms", "Isolation", "NetworkConfig") if word in text]


@pytest.mark.parametrize(
    "instance_type", ["ml.g5.xlarge", "ml.g4dn.xlarge", "ml.m5d.large", "ml.p4d.24xlarge"]
)
def test_local_storage_takes_no_key(make_plan: MakePlan, instance_type: str) -> None:
    plan: Any = make_plan(of=ACCOUNT, instance_type=instance_type, endpoint_instance_type=instance_type)
    assert "VolumeKmsKeyId" not in plan["training"]["ResourceConfig"]
    assert "KmsKeyId" not in plan["deployment"]["EndpointConfig"]
    assert "VolumeKmsKeyId" in plan["evaluation"]["ProcessingResources"]["ClusterConfig"]


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"network": {"subnets": ["subnet-1"]}}, "give both or neither"),
        ({"network": {"subnets": ["10.0.0.0/24"], "security_group_ids": ["sg-1"]}}, "subnet-"),
        ({"encryption": {"kms_key": "my key"}}, "kms_key"),
        ({"tags": {"a<b": "c"}}, "tags"),
    ],
)
def test_what_aws_would_refuse_is_refused_when_the_file_is_read(
    pipeline: Pipeline, of: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Pipeline.model_validate({**pipeline.model_dump(), **of})
