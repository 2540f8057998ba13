"""The one port: which service handles a request, and with which errors."""

from __future__ import annotations

import asyncio
import errno
import gzip
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError
from local_sagemaker.context import Operation
from local_sagemaker.errors import ModelError
from local_sagemaker.gateway import build_app
from starlette.applications import Starlette

from tests.local_sagemaker.conftest import MakeRuntime
from tests.local_sagemaker.runtime_process import REPOSITORY, RuntimeProcess


def _error(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str, int]:
    response = caught.value.response
    return (
        response["Error"]["Code"],
        response["Error"]["Message"],
        response["ResponseMetadata"]["HTTPStatusCode"],
    )


def test_health_is_ready(runtime: RuntimeProcess) -> None:
    assert httpx.get(f"{runtime.url}/_local/health").json()["status"] == "ready"


def test_operation_outside_the_runtime_is_a_client_error(sagemaker: Any) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker.list_domains()
    code, message, status = _error(caught)
    assert (code, status) == ("UnknownOperationException", 400)
    assert "ListDomains is not part of the local SageMaker runtime" in message


def test_sts_and_iam_respond(runtime: RuntimeProcess, role_arn: str) -> None:
    assert runtime.client("sts").get_caller_identity()["Account"] == "123456789012"
    role = runtime.client("iam").get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
    assert role["Arn"] == role_arn


def moto_request(runtime: RuntimeProcess, service: str, body: bytes, **headers: str) -> httpx.Response:
    """A request that no client library would send."""
    signature = f"AWS4-HMAC-SHA256 Credential=a/20261127/us-east-1/{service}/aws4_request, Signature=b"
    form = "application/x-www-form-urlencoded"
    sent = {"authorization": signature, "content-type": form, **headers}
    return httpx.post(runtime.url, headers=sent, content=body)


@pytest.mark.parametrize(
    ("service", "body", "headers"),
    [
        ("iam", b"Action=NoSuchAction", {}),
        ("iam", b"Action=ListRoles&Version=2010-05-08&Marker=%3A", {}),
        ("logs", b"", {"x-amz-target": "Logs_20140328.CreateLogGroup"}),
        ("sts", b"no gzip", {"content-encoding": "gzip"}),
        ("sts", gzip.compress(bytes(5_000_000)), {"content-encoding": "gzip"}),
    ],
)
def test_what_moto_cannot_read_is_the_clients_error(
    runtime: RuntimeProcess, service: str, body: bytes, headers: dict[str, str]
) -> None:
    response = moto_request(runtime, service, body, **headers)
    assert 400 <= response.status_code < 500, response.text
    assert "Traceback" not in response.text


def test_metrics_that_boto3_compresses_arrive(runtime: RuntimeProcess) -> None:
    cloudwatch = runtime.client("cloudwatch")
    data = [{"MetricName": f"compressed-{number}", "Value": number} for number in range(1000)]
    cloudwatch.put_metric_data(Namespace="Compressed", MetricData=data)
    assert len(cloudwatch.list_metrics(Namespace="Compressed")["Metrics"]) == 500  # a page


@pytest.mark.parametrize("token", ["none", "¹", "٣", "-1", "9" * 5000])
def test_a_token_of_nobody_is_refused(sagemaker: Any, token: str) -> None:
    with pytest.raises(ClientError, match="Invalid NextToken"):
        sagemaker.list_models(NextToken=token)


def test_unknown_endpoint_is_a_client_error(sagemaker_runtime: Any) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker_runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    code, message, status = _error(caught)
    assert (code, status) == ("ValidationError", 400)
    assert "nobody" in message


def _refused_start(process: RuntimeProcess, *options: str) -> str:
    """The standard error of a start that must fail."""
    ended = subprocess.run(
        [*process.command(), *options], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert ended.returncode in {1, 2}
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_port_in_use_names_the_port_and_the_fix(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = _refused_start(RuntimeProcess(tmp_path, port=port))
    assert f"port {port}" in error
    assert "--port" in error


@pytest.mark.parametrize("port", ["70000", "http", "-1"])
def test_an_invalid_port_is_refused(tmp_path: Path, port: str) -> None:
    assert "argument --port" in _refused_start(RuntimeProcess(tmp_path), f"--port={port}")


def test_unusable_images_files_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "images.yaml"
    broken.write_text("images: [")
    assert str(broken) in _refused_start(RuntimeProcess(tmp_path, images=broken))
    assert "missing.yaml" in _refused_start(RuntimeProcess(tmp_path, images=tmp_path / "missing.yaml"))


def test_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_bytes(b"no database" * 1000)
    assert "store.sqlite" in _refused_start(RuntimeProcess(tmp_path))


def test_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--root" in _refused_start(RuntimeProcess(tmp_path / "file" / "root"))


def test_root_in_use_names_who_has_it(runtime: RuntimeProcess) -> None:
    error = _refused_start(RuntimeProcess(runtime.root))
    assert runtime.url in error
    assert "--root" in error


def test_sigterm_ends_cleanly(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    assert runtime.stop() == 0
    assert "Traceback" not in runtime.log()


def test_other_apis_signed_for_sagemaker_are_client_errors(runtime: RuntimeProcess) -> None:
    with pytest.raises(ClientError) as caught:
        runtime.client("sagemaker-metrics").batch_get_metrics(
            MetricQueries=[
                {
                    "MetricName": "loss",
                    "ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:experiment-trial-component/c",
                    "MetricStat": "Last",
                    "Period": "OneMinute",
                    "XAxisType": "Timestamp",
                }
            ]
        )
    assert _error(caught)[::2] == ("UnknownOperationException", 400)


@pytest.mark.parametrize("operation", ["invoke_endpoint_async", "invoke_endpoint_with_response_stream"])
def test_other_ways_to_invoke_are_client_errors(sagemaker_runtime: Any, operation: str) -> None:
    where = {"InputLocation": "s3://b/k"} if operation.endswith("async") else {"Body": b"x"}
    with pytest.raises(ClientError) as caught:
        getattr(sagemaker_runtime, operation)(EndpointName="e", **where)
    assert _error(caught)[::2] == ("UnknownOperationException", 400)


def test_malformed_endpoint_name_is_a_client_error(runtime: RuntimeProcess) -> None:
    response = httpx.post(f"{runtime.url}/endpoints/not_a_name/invocations", content=b"x")
    assert response.status_code == 400
    assert response.headers["x-amzn-errortype"] == "ValidationError"
    assert "not_a_name" in response.json()["Message"]


def test_body_beyond_the_quota_is_a_client_error(sagemaker_runtime: Any) -> None:
    with pytest.raises(ClientError, match="at most") as caught:
        sagemaker_runtime.invoke_endpoint(EndpointName="e", Body=b"x" * (25 * 1024 * 1024 + 1))
    assert _error(caught)[2] == 400


def test_validation_reaches_boto3(sagemaker: Any) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker.describe_training_job(TrainingJobName="under_score")
    code, message, status = _error(caught)
    assert (code, status) == ("ValidationException", 400)
    assert message.startswith("1 validation error detected: Value 'under_score' at 'trainingJobName'")


class _Faulty:
    """A service with a bug and on a full disk, which the real services do not have on demand."""

    def operations(self) -> Mapping[str, Operation]:
        return {"ListModels": self._bug, "ListEndpoints": self._full}

    def resume(self) -> None: ...

    def close(self) -> None: ...

    def invoke(self, *_: object) -> tuple[int, Mapping[str, str], bytes]:
        raise ModelError(
            'Received client error (400) from primary with message "no image".', 400, "no image", "arn"
        )

    def _bug(self, _request: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("ModelName")

    def _full(self, _request: dict[str, Any]) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "No space left on device")


def _ask_faulty(path: str, **headers: str) -> httpx.Response:
    service = _Faulty()
    app = build_app(service.operations(), [service], service, Starlette())

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(path, headers=headers, content=b"{}")

    return asyncio.run(ask())


def test_bug_is_an_internal_failure() -> None:
    response = _ask_faulty("/", **{"X-Amz-Target": "SageMaker.ListModels"})
    assert response.status_code == 500
    assert response.json()["__type"] == "InternalFailure"
    assert "KeyError: 'ModelName'" in response.json()["message"]


def test_full_disk_is_reported_and_not_retried() -> None:
    response = _ask_faulty("/", **{"X-Amz-Target": "SageMaker.ListEndpoints"})
    assert response.status_code == 507
    assert response.json()["__type"] == "InsufficientStorage"
    assert "Free some space" in response.json()["message"]


def test_model_error_has_the_response_of_the_container() -> None:
    response = _ask_faulty("/endpoints/dogs/invocations")
    assert response.status_code == 424
    assert response.headers["x-amzn-errortype"] == "ModelError"
    assert response.json()["OriginalStatusCode"] == 400
    assert response.json()["OriginalMessage"] == "no image"
    assert response.json()["LogStreamArn"] == "arn"
