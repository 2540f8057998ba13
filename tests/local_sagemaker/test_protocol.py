"""Parsing, validation and serialisation by botocore's service model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from local_sagemaker.errors import SerializationError, UnknownOperationError, ValidationError
from local_sagemaker.patterns import compile_pattern, matches
from local_sagemaker.protocol import parse_request, serialise_response, service_model

ROLE = "arn:aws:iam::123456789012:role/SageMakerRetrainingRole"


def _training_request(**changes: Any) -> dict[str, Any]:
    request = {
        "TrainingJobName": "dog-breed-1",
        "AlgorithmSpecification": {"TrainingImage": "pytorch-training:2.6", "TrainingInputMode": "File"},
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        "HyperParameters": {"lr": "0.01"},
    }
    request.update(changes)
    return {name: value for name, value in request.items() if value is not None}


def _refusal(request: dict[str, Any], operation: str = "CreateTrainingJob") -> str:
    with pytest.raises(ValidationError) as caught:
        parse_request(operation, json.dumps(request).encode())
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize("service", ["sagemaker", "sagemaker-runtime"])
def test_every_pattern_of_the_model_compiles(service: str) -> None:
    model = service_model(service)
    for name in model.shape_names:
        pattern = model.shape_for(name).metadata.get("pattern")
        if pattern is not None:
            compile_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "value", "matching"),
    [
        (r"[\p{L}\p{M}\p{S}\p{N}\p{P}]+", "Zoë-日本", True),
        (r"[\p{L}\p{M}\p{S}\p{N}\p{P}]+", "two words", False),
        (r"\p{ASCII}*", "plain", True),
        (r"\p{ASCII}*", "ë", False),
        (r"arn:[\p{Alnum}\-]+:lambda", "arn:aws-cn:lambda", True),
        (r"\A\S[\p{Print}]*\z", "a b", True),
        (r"\A\S[\p{Print}]*\z", "a\tb", False),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "dog 🐕", True),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "line\n", False),
        (r"[\w]+", "ë", False),
        (r"^[a-z]+$", "abc\n", False),
        (r"[a-z]+", "abc1", False),
    ],
)
def test_patterns_mean_what_java_means(pattern: str, value: str, matching: bool) -> None:
    assert matches(pattern, value) is matching


def test_a_valid_request_is_returned_unchanged() -> None:
    request = _training_request()
    assert parse_request("CreateTrainingJob", json.dumps(request).encode()) == request


def test_unknown_members_and_nulls_are_left_out() -> None:
    request = _training_request() | {"Novelty": 1, "Tags": None}
    assert parse_request("CreateTrainingJob", json.dumps(request).encode()) == _training_request()


def test_pattern_message() -> None:
    assert _refusal(_training_request(TrainingJobName="dog_breed")) == (
        "1 validation error detected: Value 'dog_breed' at 'trainingJobName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    )


def test_missing_member_message() -> None:
    assert _refusal(_training_request(RoleArn=None)) == (
        "1 validation error detected: Value null at 'roleArn' failed to satisfy constraint: "
        "Member must not be null"
    )


def test_all_violations_come_in_one_message() -> None:
    resources = {"InstanceType": "ml.potato", "InstanceCount": -1, "VolumeSizeInGB": 1}
    message = _refusal(_training_request(ResourceConfig=resources, TrainingJobName="x" * 64))
    assert message.startswith("4 validation errors detected: ")
    assert (
        "'trainingJobName' failed to satisfy constraint: Member must have length less than or equal to 63"
        in message
    )
    assert "Value 'ml.potato' at 'resourceConfig.instanceType'" in message
    assert "Member must satisfy enum value set: [" in message
    assert (
        "Value '-1' at 'resourceConfig.instanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 0"
    ) in message


def test_members_of_lists_are_named_by_their_index() -> None:
    channel = {"ChannelName": "train set", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix"}}}
    message = _refusal(_training_request(InputDataConfig=[channel]))
    assert "Value 'train set' at 'inputDataConfig.1.member.channelName'" in message
    assert "Value null at 'inputDataConfig.1.member.dataSource.s3DataSource.s3Uri'" in message


def test_map_entries() -> None:
    message = _refusal(_training_request(HyperParameters={"lr": "x" * 2501}))
    assert (
        "at 'hyperParameters' failed to satisfy constraint: Map value must satisfy constraint: [" in message
    )
    assert "Member must have length less than or equal to 2500" in message
    message = _refusal(_training_request(HyperParameters={"k" * 257: "x"}))
    assert "Map keys must satisfy constraint: [Member must have length less than or equal to 256" in message


def test_simple_items_of_lists() -> None:
    request = {"ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m", "TagKeys": ["ok", "not!ok"]}
    assert (
        "Value '[ok, not!ok]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must satisfy regular expression pattern: "
    ) in _refusal(request, "DeleteTags")


@pytest.mark.parametrize(
    "changes",
    [
        {"TrainingJobName": 5},
        {"HyperParameters": {"lr": 0.1}},
        {"HyperParameters": ["lr"]},
        {"ResourceConfig": "big"},
        {"InputDataConfig": {"train": 1}},
        {"EnableNetworkIsolation": "yes"},
        {"StoppingCondition": {"MaxRuntimeInSeconds": "600"}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": 1.5}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": True}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": float("inf")}},
        {"StoppingCondition": {"MaxRuntimeInSeconds": float("nan")}},
        {"InputDataConfig": [None]},
    ],
)
def test_wrong_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SerializationError) as caught:
        parse_request("CreateTrainingJob", json.dumps(_training_request(**changes)).encode())
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationError):
        parse_request("ListTrainingJobs", body)


def test_empty_body_is_an_empty_request() -> None:
    assert parse_request("ListTrainingJobs", b"") == {}


def test_timestamps_are_epoch_seconds() -> None:
    parsed = parse_request("ListTrainingJobs", b'{"CreationTimeAfter": 1700000000.5}')
    assert parsed == {"CreationTimeAfter": 1700000000.5}
    parsed = parse_request("ListTrainingJobs", b'{"CreationTimeAfter": "2023-11-14T22:13:20Z"}')
    assert parsed == {"CreationTimeAfter": 1700000000.0}


def test_operation_that_aws_does_not_have() -> None:
    with pytest.raises(UnknownOperationError, match="CreateMiracle"):
        parse_request("CreateMiracle", b"{}")


def test_union_takes_exactly_one_member() -> None:
    union = {
        "AutoMLJobName": "a",
        "AutoMLJobInputDataConfig": [],
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        "RoleArn": ROLE,
        "AutoMLProblemTypeConfig": {
            "ImageClassificationJobConfig": {},
            "TextClassificationJobConfig": {"ContentColumn": "a", "TargetLabelColumn": "b"},
        },
    }
    assert "Exactly one member of" in _refusal(union, "CreateAutoMLJobV2")


def test_a_response_has_only_the_members_of_its_shape() -> None:
    document = {
        "TrainingJobName": "dog-breed-1",
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/dog-breed-1",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m", "_checked": True},
        "CreationTime": datetime.fromtimestamp(1700000000, UTC),
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": 1700000000.25, "_thread": 1}],
        "FailureReason": None,
        "_pid": 4711,
    }
    assert json.loads(serialise_response("DescribeTrainingJob", document)) == {
        "TrainingJobName": "dog-breed-1",
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/dog-breed-1",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"},
        "CreationTime": 1700000000.0,
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": 1700000000.25}],
    }


def test_a_response_without_required_members_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    serialise_response("CreateTrainingJob", {})
    assert "TrainingJobArn" in caplog.text


def test_operation_without_output() -> None:
    assert serialise_response("StopTrainingJob", {}) == b"{}"
    assert serialise_response("StopTrainingJob", None) == b"{}"
