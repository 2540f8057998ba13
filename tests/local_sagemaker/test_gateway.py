"""The one port: what is answered where, and with which errors."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

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


def test_sts_and_iam_answer(runtime: RuntimeProcess, role_arn: str) -> None:
    assert runtime.client("sts").get_caller_identity()["Account"] == "123456789012"
    role = runtime.client("iam").get_role(RoleName=role_arn.rpartition("/")[2])["Role"]
    assert role["Arn"] == role_arn


def test_unknown_endpoint_is_a_client_error(sagemaker_runtime: Any) -> None:
    with pytest.raises(ClientError) as caught:
        sagemaker_runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    code, message, status = _error(caught)
    assert (code, status) == ("ValidationError", 400)
    assert "nobody" in message


def test_port_in_use_names_the_port_and_the_fix(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = RuntimeProcess(tmp_path, port=taken.getsockname()[1])
        ended = subprocess.run(process.command(), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.strip().count("\n") == 0
    assert str(process.port) in ended.stderr
    assert "--port" in ended.stderr


def test_root_in_use_names_who_has_it(runtime: RuntimeProcess) -> None:
    second = RuntimeProcess(runtime.root)
    ended = subprocess.run(second.command(), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert runtime.url in ended.stderr
    assert "--root" in ended.stderr


def test_sigterm_ends_cleanly(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    assert runtime.stop() == 0
    assert "Traceback" not in runtime.log()
