"""Fixtures for tests that talk to a real local SageMaker through boto3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local_sagemaker.runtime_process import RuntimeProcess

BUCKET = "sagemaker-us-east-1-123456789012"
ROLE_ARN = "arn:aws:iam::123456789012:role/SageMakerRetrainingRole"

MakeRuntime = Callable[..., RuntimeProcess]


@pytest.fixture(scope="session")
def make_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRuntime]:
    """Starts further runtimes, for tests that kill one; keyword arguments are RuntimeProcess's."""
    started: list[RuntimeProcess] = []

    def make(root: Path | None = None, **options: Any) -> RuntimeProcess:
        process = RuntimeProcess(root or tmp_path_factory.mktemp("sagemaker"), **options)
        started.append(process)
        return process.start()

    yield make
    for process in started:
        process.close()


@pytest.fixture(scope="session")
def runtime(make_runtime: MakeRuntime) -> RuntimeProcess:
    """One runtime for the whole session; tests use unique names and never stop it."""
    process = make_runtime()
    process.client("s3").create_bucket(Bucket=BUCKET)
    process.client("iam").create_role(RoleName=ROLE_ARN.rpartition("/")[2], AssumeRolePolicyDocument="{}")
    return process


@pytest.fixture(scope="session")
def bucket(runtime: RuntimeProcess) -> str:
    """The runtime's default bucket, which exists."""
    return BUCKET


@pytest.fixture(scope="session")
def role_arn(runtime: RuntimeProcess) -> str:
    """A role that exists."""
    return ROLE_ARN


@pytest.fixture(scope="session")
def sagemaker(runtime: RuntimeProcess) -> Any:
    return runtime.client("sagemaker")


@pytest.fixture(scope="session")
def sagemaker_runtime(runtime: RuntimeProcess) -> Any:
    return runtime.client("sagemaker-runtime")


@pytest.fixture(scope="session")
def s3(runtime: RuntimeProcess) -> Any:
    return runtime.client("s3")


@pytest.fixture(scope="session")
def logs(runtime: RuntimeProcess) -> Any:
    return runtime.client("logs")
