"""Keys and names that would lead out of their folder, through boto3: refused, and nothing is written."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import IMAGE, HostingClient, unique
from tests.local_sagemaker.processing_support import PROCESSING, ProcessingRunner
from tests.local_sagemaker.runtime_process import REPOSITORY, RuntimeProcess, environment_python
from tests.local_sagemaker.training_support import JobRunner

MARK = b"escaped"


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> JobRunner:
    return JobRunner(runtime, bucket, role_arn)


def escaped(runtime: RuntimeProcess) -> list[Path]:
    """Files with the mark outside of S3's own folder."""
    root = runtime.root.parent
    s3 = runtime.root / "s3"
    found = [path for path in root.rglob("*") if path.is_file() and not path.is_relative_to(s3)]
    return [path for path in found if path.stat().st_size == len(MARK) and path.read_bytes() == MARK]


@pytest.mark.parametrize("path", ["../../../../escaped", "a/../../../escaped", "/escaped", "a//b", "x" * 250])
def test_a_model_s_key_cannot_leave_its_folder(
    runtime: RuntimeProcess, bucket: str, role_arn: str, path: str
) -> None:
    hosting = HostingClient(runtime, bucket, role_arn)
    prefix = f"models/{unique('evil')}/"
    hosting.s3.put_object(Bucket=bucket, Key=prefix + path, Body=MARK)
    source = {"S3Uri": f"s3://{bucket}/{prefix}", "S3DataType": "S3Prefix", "CompressionType": "None"}
    model, endpoint = unique("model"), unique("endpoint")
    hosting.sagemaker.create_model(
        ModelName=model,
        ExecutionRoleArn=role_arn,
        PrimaryContainer={"Image": IMAGE, "ModelDataSource": {"S3DataSource": source}},
    )
    hosting.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=hosting.config(model))
    described = hosting.settled(endpoint)
    assert described["EndpointStatus"] == "Failed"
    assert repr(prefix + path) in described["FailureReason"]
    assert escaped(runtime) == []
    hosting.delete(endpoint)


def evil_archive(target: str) -> bytes:
    """An archive whose last member goes through a link to `target`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, target
        tar.addfile(link)
        member = tarfile.TarInfo("link/escaped")
        member.size = len(MARK)
        tar.addfile(member, io.BytesIO(MARK))
    return buffer.getvalue()


def test_a_model_s_archive_cannot_leave_its_folder(
    runtime: RuntimeProcess, bucket: str, role_arn: str
) -> None:
    hosting = HostingClient(runtime, bucket, role_arn)
    key, model, endpoint = f"models/{unique('evil')}/model.tar.gz", unique("model"), unique("endpoint")
    hosting.s3.put_object(Bucket=bucket, Key=key, Body=evil_archive(".."))
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/{key}"}
    hosting.sagemaker.create_model(ModelName=model, ExecutionRoleArn=role_arn, PrimaryContainer=container)
    hosting.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=hosting.config(model))
    described = hosting.settled(endpoint)
    assert described["EndpointStatus"] == "Failed"
    assert f"Could not unpack the model data at s3://{bucket}/{key}" in described["FailureReason"]
    assert "'link' links to '..', outside of the folder" in described["FailureReason"]
    assert escaped(runtime) == []
    hosting.delete(endpoint)


def test_source_code_cannot_leave_its_folder(jobs: JobRunner) -> None:
    name = unique("source")
    request = jobs.request(name)
    jobs.put(f"code/{name}/sourcedir.tar.gz", evil_archive("../../.."))
    jobs.sagemaker.create_training_job(**request)
    job = jobs.wait(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: the source code s3://")
    assert "'link' links to '../../..', outside of the folder" in job["FailureReason"]
    assert escaped(jobs.runtime) == []


def test_a_checkpoint_s_key_cannot_leave_its_folder(jobs: JobRunner) -> None:
    name = unique("checkpoint")
    jobs.put(f"checkpoints/{name}/../../../escaped", MARK)
    jobs.create(name, CheckpointConfig={"S3Uri": f"s3://{jobs.bucket}/checkpoints/{name}"})
    job = jobs.wait(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(f"ClientError: the key 'checkpoints/{name}/../../../escaped'")
    assert escaped(jobs.runtime) == []


def test_data_cannot_leave_its_folder(jobs: JobRunner) -> None:
    name = unique("data")
    jobs.put(f"{name}/../../../escaped", MARK)
    refused(jobs, f"the key '{name}/../../../escaped'", InputDataConfig=[jobs.channel("train", name)])
    processing = ProcessingRunner(jobs.runtime, jobs.bucket, jobs.role_arn)
    with pytest.raises(ClientError, match=f"the key '{name}/../../../escaped'"):
        processing.create(name, ProcessingInputs=[processing.input("data", f"s3://{jobs.bucket}/{name}")])
    assert escaped(jobs.runtime) == []


@pytest.mark.parametrize("channel", ["..", "."])
def test_a_channel_s_name_is_a_folder_of_its_own(jobs: JobRunner, channel: str) -> None:
    name = unique("channel")
    jobs.put(f"{name}/1")
    refused(jobs, f"'{channel}' leads out of its folder", InputDataConfig=[jobs.channel(channel, name)])


@pytest.mark.parametrize("rule", ["../../../escaped", "/tmp/escaped", "a\0b", "x" * 250])  # noqa: S108
def test_a_rule_s_name_is_a_folder_of_its_own(jobs: JobRunner, rule: str) -> None:
    image = "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest"
    configuration = {
        "RuleConfigurationName": rule,
        "RuleEvaluatorImage": image,
        "RuleParameters": {"rule_to_invoke": "ProfilerReport"},
    }
    refused(jobs, repr(rule), ProfilerRuleConfigurations=[configuration])


@pytest.mark.parametrize(
    "path", ["/opt/ml/a\0b", f"/opt/ml/{'x' * 250}", "/opt/ml/../../escaped", "/opt/mlx"]
)
@pytest.mark.parametrize("member", ["CheckpointConfig", "TensorBoardOutputConfig", "DebugHookConfig"])
def test_a_training_job_s_folders_are_below_opt_ml(jobs: JobRunner, member: str, path: str) -> None:
    uri = "S3Uri" if member == "CheckpointConfig" else "S3OutputPath"
    refused(jobs, "", **{member: {uri: f"s3://{jobs.bucket}/out", "LocalPath": path}})


@pytest.mark.parametrize("path", [f"{PROCESSING}/a\0b", f"{PROCESSING}/{'x' * 250}", f"{PROCESSING}/../../b"])
def test_a_processing_job_s_folders_are_below_processing(jobs: JobRunner, path: str) -> None:
    name = unique("folders")
    uri = jobs.put(f"{name}/1")
    processing = ProcessingRunner(jobs.runtime, jobs.bucket, jobs.role_arn)
    with pytest.raises(ClientError, match="ValidationException"):
        processing.create(name, ProcessingInputs=[processing.input("data", uri, LocalPath=path)])


def refused(jobs: JobRunner, words: str, **members: Any) -> None:
    """CreateTrainingJob is refused with these words."""
    with pytest.raises(ClientError) as caught:
        jobs.create("refused", **members)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationException"
    assert words in error["Message"]


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("index/../../../escaped", ("evaluate", "--job", "a", "--tensors")),
        ("a/../../../escaped", ("profiler_report",)),
    ],
)
def test_rules_that_read_s3_write_into_their_own_folder(
    jobs: JobRunner, tmp_path: Path, key: str, arguments: tuple[str, ...]
) -> None:
    prefix = unique("observations")
    jobs.put(f"{prefix}/{key}", MARK)
    (tmp_path / "rules.json").write_text(
        json.dumps([{"RuleConfigurationName": "Overfit", "RuleParameters": {"rule_to_invoke": "Overfit"}}])
    )
    (tmp_path / "ended").touch()
    evaluating = ("--rules", str(tmp_path / "rules.json"), "--ended-file", str(tmp_path / "ended"))
    ended = subprocess.run(
        [
            *(str(environment_python("training")), "-m", "debugger", *arguments),
            *(f"s3://{jobs.bucket}/{prefix}", "--output", str(tmp_path / "output")),
            *(evaluating if arguments[0] == "evaluate" else ()),
        ],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PYTHONPATH": str(REPOSITORY / "sagemaker_code"),
            "S3_ENDPOINT_URL": jobs.runtime.url,
            "TMPDIR": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert f"the object {key!r} cannot be a file in a folder" in ended.stdout + ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.name == "escaped"] == []
    assert not (tmp_path.parent / "escaped").exists()
