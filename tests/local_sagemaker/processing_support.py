"""Helpers for tests of processing jobs: scripts in S3, requests, and waiting with boto3's own waiter."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import WaiterError

from tests.local_sagemaker.runtime_process import wait_for
from tests.local_sagemaker.training_support import IMAGE, Runner, read_log

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
PROCESSING = "/opt/ml/processing"
WAITING = {"Delay": 1, "MaxAttempts": 120}


class ProcessingRunner(Runner):
    """Creates processing jobs in a runtime, with scripts given as text."""

    def request(self, name: str, script: str = "", **members: Any) -> dict[str, Any]:
        """A CreateProcessingJob request for `script`; `members` replace or add members of the request, but
        `ProcessingInputs` come beside the script.
        """
        code = self.put(f"code/{name}/evaluate.py", script.encode())
        inputs = [self.input("code", code), *members.pop("ProcessingInputs", [])]
        return {
            "ProcessingJobName": name,
            "RoleArn": self.role_arn,
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", f"{PROCESSING}/code/evaluate.py"],
            },
            "ProcessingInputs": inputs,
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
            },
            **members,
        }

    def create(self, name: str, script: str = "", **members: Any) -> str:
        request = self.request(name, script, **members)
        arn: str = self.sagemaker.create_processing_job(**request)["ProcessingJobArn"]
        return arn

    def input(self, name: str, uri: str, **members: Any) -> dict[str, Any]:
        """An input at /opt/ml/processing/<name>."""
        source = {
            "S3Uri": uri,
            "LocalPath": f"{PROCESSING}/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
            **members,
        }
        return {"InputName": name, "S3Input": source}

    def outputs(self, name: str, mode: str = "EndOfJob") -> dict[str, Any]:
        """A ProcessingOutputConfig: what is in /opt/ml/processing/out goes to out/<name>."""
        output = {
            "S3Uri": f"s3://{self.bucket}/out/{name}",
            "LocalPath": f"{PROCESSING}/out",
            "S3UploadMode": mode,
        }
        return {"Outputs": [{"OutputName": "out", "S3Output": output}]}

    def describe(self, name: str) -> dict[str, Any]:
        response: dict[str, Any] = self.sagemaker.describe_processing_job(ProcessingJobName=name)
        return response

    def wait(self, name: str) -> dict[str, Any]:
        """The description of the job once boto3's waiter says that it has ended, well or not."""
        waiter = self.sagemaker.get_waiter("processing_job_completed_or_stopped")
        failure = None
        try:
            waiter.wait(ProcessingJobName=name, WaiterConfig=WAITING)
        except WaiterError as error:
            failure = error
        job = self.describe(name)
        if failure is not None and job["ProcessingJobStatus"] != "Failed":
            raise failure
        return job

    def log(self, name: str) -> list[str]:
        return read_log(self.logs, LOG_GROUP, f"{name}/algo-1-")

    def wait_for_line(self, name: str, text: str, seconds: float = 120) -> None:
        wait_for(
            lambda: any(text in line for line in self.log(name)),
            seconds,
            f"{text!r} in the log of {name}",
            every=0.2,
        )

    def objects(self, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix, by what follows it."""
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix).get("Contents", [])
        return {
            item["Key"].removeprefix(prefix): self.s3.get_object(Bucket=self.bucket, Key=item["Key"])[
                "Body"
            ].read()
            for item in found
        }
