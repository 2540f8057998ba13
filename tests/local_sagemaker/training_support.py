"""Helpers for tests of training jobs: source archives, requests, waiting, and logs."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0-cpu-py312-ubuntu22.04-sagemaker"
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ENDED = {"Completed", "Failed", "Stopped"}


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A `sourcedir.tar.gz`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Runner:
    """Clients of a runtime, with a bucket and a role for jobs."""

    runtime: RuntimeProcess
    bucket: str
    role_arn: str

    def __post_init__(self) -> None:
        self.sagemaker = self.runtime.client("sagemaker")
        self.s3 = self.runtime.client("s3")
        self.logs = self.runtime.client("logs")

    def put(self, key: str, content: bytes = b"content") -> str:
        """Put an object; its URI."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=content)
        return f"s3://{self.bucket}/{key}"


class JobRunner(Runner):
    """Creates training jobs in a runtime, with scripts given as text."""

    def request(
        self, name: str, script: str = "", files: Mapping[str, str | bytes] | None = None, **members: Any
    ) -> dict[str, Any]:
        """A CreateTrainingJob request for `script`; `members` replace or add members of the request."""
        code = self.put(f"code/{name}/sourcedir.tar.gz", archive({"train.py": script, **(files or {})}))
        hyperparameters = {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps(code),
            **members.pop("HyperParameters", {}),
        }
        return {
            "TrainingJobName": name,
            "RoleArn": self.role_arn,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "HyperParameters": hyperparameters,
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            **members,
        }

    def create(
        self, name: str, script: str = "", files: Mapping[str, str | bytes] | None = None, **members: Any
    ) -> str:
        request = self.request(name, script, files, **members)
        arn: str = self.sagemaker.create_training_job(**request)["TrainingJobArn"]
        return arn

    def channel(self, name: str, prefix: str, **members: Any) -> dict[str, Any]:
        source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{self.bucket}/{prefix}"}
        return {"ChannelName": name, "DataSource": {"S3DataSource": source}, **members}

    def describe(self, name: str) -> dict[str, Any]:
        response: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return response

    def wait(self, name: str, seconds: float = 120) -> dict[str, Any]:
        """The description of the job once it has ended."""

        def ended() -> dict[str, Any] | None:
            job = self.describe(name)
            return job if job["TrainingJobStatus"] in ENDED else None

        return wait_for(ended, seconds, f"the end of {name}", every=0.2)

    def log(self, name: str) -> list[str]:
        """The messages of the job's log stream; none where there is no stream yet."""
        return read_log(self.logs, LOG_GROUP, f"{name}/algo-1-")

    def wait_for_line(self, name: str, text: str, seconds: float = 120) -> list[str]:
        """The log once a line with `text` is in it."""

        def lines() -> list[str] | None:
            log = self.log(name)
            return log if any(text in line for line in log) else None

        return wait_for(lines, seconds, f"{text!r} in the log of {name}", every=0.2)

    def object(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def keys(self, prefix: str) -> list[str]:
        """The keys below a prefix, without it."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return [item["Key"].removeprefix(prefix) for item in found]

    def members(self, key: str) -> dict[str, bytes]:
        """The files of a tar.gz in S3."""
        with tarfile.open(fileobj=io.BytesIO(self.object(key)), mode="r:gz") as tar:
            return {item.name: _content(tar, item) for item in tar.getmembers() if item.isfile()}


def read_log(logs: Any, group: str, prefix: str) -> list[str]:
    """The messages of the first log stream with a prefix; none where there is no group or stream yet."""
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        return []
    found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
    if not found:
        return []
    stream, token, lines = found[0]["logStreamName"], None, list[str]()
    while True:
        more: dict[str, Any] = {"nextToken": token} if token else {}
        page = logs.get_log_events(logGroupName=group, logStreamName=stream, startFromHead=True, **more)
        lines += [event["message"] for event in page["events"]]
        if page["nextForwardToken"] == token:
            return lines
        token = page["nextForwardToken"]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
