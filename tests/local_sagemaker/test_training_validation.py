"""What the training job operations refuse, with AWS's codes and messages."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.runtime_process import RuntimeProcess
from tests.local_sagemaker.training_support import JobRunner


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> JobRunner:
    runner = JobRunner(runtime, bucket, role_arn)
    runner.put("refusals/data/1.txt")
    runner.put(
        "refusals/manifest.json", b'[{"prefix": "s3://%s/refusals/data/"}, "no.txt"]' % bucket.encode()
    )
    return runner


def refusal(jobs: JobRunner, **members: Any) -> tuple[str, str]:
    """Error code and message of a CreateTrainingJob that is refused."""
    with pytest.raises(ClientError) as caught:
        jobs.create("refused", **members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def source(uri: str, **members: str) -> dict[str, Any]:
    return {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **members}}}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://no-such-bucket/data", "there is no bucket s3://no-such-bucket"),
        ("s3://{bucket}/refusals/empty/", "there is no object under s3://{bucket}/refusals/empty/"),
    ],
)
def test_input_that_is_not_in_s3(jobs: JobRunner, uri: str, words: str) -> None:
    uri, words = uri.format(bucket=jobs.bucket), words.format(bucket=jobs.bucket)
    code, message = refusal(jobs, InputDataConfig=[{"ChannelName": "train", **source(uri)}])
    assert code == "ValidationException"
    assert message.startswith(f'No S3 objects found under S3 URL "{uri}" given in input data source.')
    assert words in message


def test_two_channels_of_one_name(jobs: JobRunner) -> None:
    channel = jobs.channel("train", "refusals/data")
    code, message = refusal(jobs, InputDataConfig=[channel, channel])
    assert code == "ValidationException"
    assert "'train' twice" in message


def test_manifest_with_a_missing_object(jobs: JobRunner) -> None:
    uri = f"s3://{jobs.bucket}/refusals/manifest.json"
    channel = {"ChannelName": "train", **source(uri, S3DataType="ManifestFile")}
    assert "'no.txt'" in refusal(jobs, InputDataConfig=[channel])[1]


@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        (
            "OutputDataConfig",
            {"S3OutputPath": "s3://no-such-bucket/out"},
            "there is no bucket s3://no-such-bucket",
        ),
        ("CheckpointConfig", {"S3Uri": "s3://no-such-bucket/c"}, "CheckpointConfig.S3Uri"),
        (
            "CheckpointConfig",
            {"S3Uri": "s3://sagemaker-us-east-1-123456789012/c", "LocalPath": "/home/me"},
            "use a path below /opt/ml",
        ),
        (
            "ResourceConfig",
            {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1},
            "InstanceCount 2 is not supported",
        ),
        (
            "StoppingCondition",
            {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
            "MaxWaitTimeInSeconds",
        ),
        ("EnableManagedSpotTraining", True, "It must be present and be greater than or equal"),
    ],
)
def test_invalid_members(jobs: JobRunner, member: str, value: Any, words: str) -> None:
    code, message = refusal(jobs, **{member: value})
    assert code == "ValidationException"
    assert words in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/xgboost:1"}, "xgboost:1' has no environment"),
        ({"TrainingInputMode": "Pipe"}, "use one of File, FastFile"),
        ({"MetricDefinitions": [{"Name": "loss", "Regex": "loss=("}]}, "Regex 'loss=(' of metric 'loss'"),
        ({"MetricDefinitions": [{"Name": "loss", "Regex": "loss"}]}, "has no group"),
        ({"ContainerEntrypoint": ["bash"]}, "sagemaker_program"),
    ],
)
def test_unsupported_algorithms(jobs: JobRunner, changes: dict[str, Any], words: str) -> None:
    algorithm = jobs.request("refused")["AlgorithmSpecification"] | changes
    code, message = refusal(jobs, AlgorithmSpecification=algorithm)
    assert code == "ValidationException"
    assert words in message


def test_a_refused_job_leaves_nothing(jobs: JobRunner) -> None:
    refusal(jobs, OutputDataConfig={"S3OutputPath": "s3://no-such-bucket/out"})
    with pytest.raises(ClientError, match="Requested resource not found"):
        jobs.describe("refused")


def test_names_are_unique(jobs: JobRunner) -> None:
    jobs.create("taken", "print('done')")
    with pytest.raises(ClientError) as caught:
        jobs.create("taken", "print('done')")
    error = caught.value.response["Error"]
    assert error["Code"] == "ResourceInUse"
    assert error["Message"].startswith("Training job names must be unique within an AWS account and region")
    jobs.wait("taken")


@pytest.mark.parametrize("operation", ["describe_training_job", "stop_training_job", "delete_training_job"])
def test_a_missing_job_is_named(jobs: JobRunner, operation: str) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(jobs.sagemaker, operation)(TrainingJobName="no-such-job")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert error["Message"] == "Requested resource not found."
