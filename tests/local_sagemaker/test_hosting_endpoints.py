"""Endpoints in service: what clients get from InvokeEndpoint, DescribeEndpoint and the logs."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.hosting_support import (
    CONFIG,
    IMAGE,
    INFERENCE,
    MODEL,
    TORCHSERVE_IMAGE,
    HostingClient,
    archive,
    traffic,
    unique,
    variant_of,
)
from tests.local_sagemaker.runtime_process import RuntimeProcess, run_sdk, wait_for


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def endpoint(hosting: HostingClient) -> str:
    """One instance of one model; tests leave it in service."""
    return hosting.endpoint(hosting.config(hosting.model("one", environment={"VARIABLE": "set"})))


def refused(hosting: HostingClient, endpoint: str, request: Any = None, **members: Any) -> dict[str, Any]:
    """The error response of an invocation that must fail in the model."""
    with pytest.raises(hosting.inference.exceptions.ModelError) as error:
        hosting.invoke(endpoint, request, **members)
    response: dict[str, Any] = error.value.response
    return response


def test_the_model_responds(hosting: HostingClient, endpoint: str) -> None:
    result = hosting.invoke(endpoint, {"value": 21}, Accept="application/json")
    assert result["value"] == 21.0
    assert result["variable"] == "set"
    assert result["accept"] == "application/json"
    assert result["response"]["ContentType"] == "application/json"
    assert result["response"]["InvokedProductionVariant"] == "AllTraffic"


def test_an_endpoint_is_described_as_on_aws(hosting: HostingClient, endpoint: str) -> None:
    response = hosting.sagemaker.describe_endpoint(EndpointName=endpoint)
    assert response["EndpointStatus"] == "InService"
    assert response["EndpointArn"] == f"arn:aws:sagemaker:us-east-1:123456789012:endpoint/{endpoint}"
    variant = response["ProductionVariants"][0]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 1.0)
    assert "ray:serve-ml" in variant["DeployedImages"][0]["ResolvedImage"]
    assert not [member for member in response if member.startswith("_")]
    listed = hosting.sagemaker.list_endpoints(NameContains=endpoint, StatusEquals="InService")["Endpoints"]
    assert [item["EndpointName"] for item in listed] == [endpoint]


def test_a_refused_input_is_a_client_error_and_the_worker_stays(
    hosting: HostingClient, endpoint: str
) -> None:
    before = hosting.invoke(endpoint)["pid"]
    response = refused(hosting, endpoint, ContentType="text/plain")
    assert response["OriginalStatusCode"] == 400
    assert response["OriginalMessage"].startswith("cannot read text/plain")
    assert f"/aws/sagemaker/Endpoints/{endpoint}:log-stream:AllTraffic/i-" in response["LogStreamArn"]
    assert (
        'Received client error (400) from primary with message "cannot read' in response["Error"]["Message"]
    )
    assert hosting.invoke(endpoint)["pid"] == before


def test_an_exception_of_the_model_is_a_server_error(hosting: HostingClient, endpoint: str) -> None:
    response = refused(hosting, endpoint, {"error": "the weights are upside down"})
    assert response["OriginalStatusCode"] == 500
    assert response["OriginalMessage"] == "Internal Server Error"  # Ray Serve's; the reason is in the log
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_custom_attributes_pass_through(hosting: HostingClient, endpoint: str) -> None:
    response = hosting.invoke(endpoint, CustomAttributes="trace=7")["response"]
    assert response["CustomAttributes"] == "trace=7;seen"


def test_bodies_up_to_25_mb_are_accepted(hosting: HostingClient, endpoint: str) -> None:
    padding = "x" * (8 * 1024 * 1024)
    assert hosting.invoke(endpoint, {"value": 2, "padding": padding})["value"] == 2.0
    with pytest.raises(ClientError, match="at most") as error:
        hosting.invoke(endpoint, {"padding": padding * 3 + padding[: 4 * 1024 * 1024]})
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_the_log_reaches_cloudwatch(hosting: HostingClient, endpoint: str, logs: Any) -> None:
    group = f"/aws/sagemaker/Endpoints/{endpoint}"
    [stream] = logs.describe_log_streams(logGroupName=group)["logStreams"]
    assert re.fullmatch(r"AllTraffic/i-[0-9a-f]{16}", stream["logStreamName"])

    def loaded() -> bool:
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        return any(event["message"] == "loaded version one" for event in events)

    wait_for(loaded, 10, "the model's line in CloudWatch Logs")


def test_a_crashed_worker_is_restarted_and_its_request_repeated(
    hosting: HostingClient, endpoint: str, tmp_path: Path
) -> None:
    before = hosting.invoke(endpoint)["pid"]
    after = hosting.invoke(endpoint, {"crash_once": str(tmp_path / "crashed")})["pid"]
    assert after != before


def test_a_request_that_crashes_every_worker_fails(hosting: HostingClient, endpoint: str) -> None:
    response = refused(hosting, endpoint, {"crash": True})
    assert response["OriginalStatusCode"] == 502
    assert "again when it was repeated" in response["OriginalMessage"]
    assert hosting.invoke(endpoint)["value"] == 1.0


def test_a_prediction_past_the_server_timeout_is_cut_off(hosting: HostingClient) -> None:
    model = hosting.model("slow", environment={"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1"})
    endpoint = hosting.endpoint(hosting.config(model))
    started = time.monotonic()
    response = refused(hosting, endpoint, {"sleep": 30})
    assert response["OriginalStatusCode"] == 500
    assert "took longer than 1 s" in response["OriginalMessage"]
    assert time.monotonic() - started < 10
    assert hosting.invoke(endpoint)["version"] == "slow"
    hosting.delete(endpoint)


def test_instances_are_processes_that_share_the_cores(hosting: HostingClient) -> None:
    endpoint = hosting.endpoint(hosting.config(hosting.model("many"), instances=2))
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: hosting.invoke(endpoint, {"sleep": 0.05}), range(16)))
    pids = {response["pid"] for response in responses}
    assert len(pids) == 2
    cores = len(psutil.Process().cpu_affinity() or [])
    assert {response["threads"] for response in responses} == {max(1, cores // 2)}
    hosting.delete(endpoint)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), 10, "the processes to end")


def test_variants_share_the_traffic_by_weight(hosting: HostingClient) -> None:
    variants = [
        variant_of(hosting.model("a", sleep=0.01), "A", weight=3.0),
        variant_of(hosting.model("b", sleep=0.01), "B", weight=1.0),
    ]
    endpoint = hosting.endpoint(hosting.config("", ProductionVariants=variants))
    seen = Counter(hosting.invoke(endpoint)["response"]["InvokedProductionVariant"] for _ in range(40))
    assert seen == {"A": 30, "B": 10}
    assert hosting.invoke(endpoint, TargetVariant="B")["version"] == "b"
    with pytest.raises(ClientError, match="Variant C was not found"):
        hosting.invoke(endpoint, TargetVariant="C")

    desired = [
        {"VariantName": "A", "DesiredWeight": 0.0},
        {"VariantName": "B", "DesiredWeight": 1.0, "DesiredInstanceCount": 2},
    ]
    with traffic(hosting, endpoint, clients=2) as seen_by_clients:
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint, DesiredWeightsAndCapacities=desired
        )
        found = {item["VariantName"]: item for item in hosting.settled(endpoint)["ProductionVariants"]}
    assert seen_by_clients.failures == []
    assert (found["A"]["CurrentWeight"], found["B"]["CurrentWeight"]) == (0.0, 1.0)
    assert (found["A"]["CurrentInstanceCount"], found["B"]["CurrentInstanceCount"]) == (1, 2)
    assert {hosting.invoke(endpoint)["version"] for _ in range(6)} == {"b"}

    smaller = [{"VariantName": "B", "DesiredInstanceCount": 1}]
    with traffic(hosting, endpoint, clients=2) as seen_by_clients:
        hosting.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=endpoint, DesiredWeightsAndCapacities=smaller
        )
        assert hosting.settled(endpoint)["ProductionVariants"][1]["CurrentInstanceCount"] == 1
    assert seen_by_clients.failures == []
    hosting.delete(endpoint)


def test_a_model_that_does_not_load_fails_the_endpoint_with_its_exception(hosting: HostingClient) -> None:
    config = hosting.config(hosting.model("broken", load_error="no weights in this archive"))
    name = unique("endpoint")
    hosting.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    response = hosting.settled(name)
    assert response["EndpointStatus"] == "Failed"
    assert "production variant AllTraffic did not pass the ping health check" in response["FailureReason"]
    assert "RuntimeError: no weights in this archive" in response["FailureReason"]
    with pytest.raises(ClientError, match=f"Endpoint {name} of account 123456789012 not found"):
        hosting.invoke(name)
    with pytest.raises(ClientError, match="delete it and create it again"):
        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
    hosting.delete(name)


def test_an_invalid_archive_fails_the_endpoint(hosting: HostingClient) -> None:
    key = f"models/{unique('junk')}/model.tar.gz"
    hosting.s3.put_object(Bucket=hosting.bucket, Key=key, Body=b"this is no archive")
    model = unique("model")
    container = {
        "Image": hosting.sagemaker.describe_model(ModelName=hosting.model("x"))["PrimaryContainer"]["Image"],
        "ModelDataUrl": f"s3://{hosting.bucket}/{key}",
    }
    hosting.sagemaker.create_model(
        ModelName=model, ExecutionRoleArn=hosting.role_arn, PrimaryContainer=container
    )
    name = unique("endpoint")
    hosting.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=hosting.config(model))
    assert (
        f"Could not unpack the model data at s3://{hosting.bucket}/{key}"
        in (hosting.settled(name)["FailureReason"])
    )
    hosting.delete(name)


def test_program_and_submit_directory_are_honoured(hosting: HostingClient) -> None:
    key = f"models/{unique('code')}/sourcedir.tar.gz"
    files = {"server_side.py": INFERENCE, "model.py": MODEL}
    hosting.s3.put_object(Bucket=hosting.bucket, Key=key, Body=archive(files))
    environment = {
        "SAGEMAKER_PROGRAM": "server_side.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": f"s3://{hosting.bucket}/{key}",
    }
    endpoint = hosting.endpoint(hosting.config(hosting.model("elsewhere", environment, TORCHSERVE_IMAGE)))
    assert hosting.invoke(endpoint)["version"] == "elsewhere"
    hosting.delete(endpoint)


def test_torchserve_is_in_service_before_its_model_loads_and_requests_wait(
    hosting: HostingClient, tmp_path: Path, logs: Any
) -> None:
    """As on AWS: /ping is healthy while the model fails to load, again and again."""
    blocker = tmp_path / "blocker"
    blocker.touch()
    model = hosting.model("late", image=TORCHSERVE_IMAGE, load_once=str(blocker))
    endpoint = hosting.endpoint(hosting.config(model))
    group = f"/aws/sagemaker/Endpoints/{endpoint}"

    def failed() -> bool:
        [stream] = logs.describe_log_streams(logGroupName=group)["logStreams"]
        events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        return any("The model does not load" in event["message"] for event in events)

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(hosting.invoke, endpoint, CustomAttributes="trace=7")
        wait_for(failed, 60, "an attempt to load the model that fails")
        assert not waiting.done()
        blocker.unlink()
        result = waiting.result()
    assert result["version"] == "late"
    assert result["response"]["CustomAttributes"] == "trace=7;seen"
    hosting.delete(endpoint)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has no config.yaml at its top, and SM_RAYSERVE_APP is not set"),
        ({"config.yaml": "applications: []"}, "config.yaml must list one application"),
        (
            {"config.yaml": CONFIG, "deployment.py": "from ray import serve\nserve.batch"},
            "serve.batch is not",
        ),
        (
            {"config.yaml": CONFIG, "deployment.py": "app = 1"},
            "is no application made by a deployment's bind",
        ),
    ],
)
def test_an_archive_that_ray_serve_cannot_run_says_why(
    hosting: HostingClient, files: dict[str, str], reason: str
) -> None:
    endpoint = unique("endpoint")
    config = hosting.config(application(hosting, {"a": "b", **files}))
    hosting.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    assert reason in hosting.settled(endpoint)["FailureReason"]
    hosting.delete(endpoint)


def application(hosting: HostingClient, files: dict[str, str]) -> str:
    """A model whose archive has these files."""
    name = unique("model")
    key = f"models/{name}/model.tar.gz"
    hosting.s3.put_object(Bucket=hosting.bucket, Key=key, Body=archive(files))
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{hosting.bucket}/{key}"}
    hosting.sagemaker.create_model(
        ModelName=name, ExecutionRoleArn=hosting.role_arn, PrimaryContainer=container
    )
    return name


WAITING_FOR_ANOTHER = """
import asyncio

from ray import serve
from starlette.responses import PlainTextResponse


@serve.deployment
class Model:
    def __init__(self):
        self.released = asyncio.Event()

    async def __call__(self, request):
        if await request.body() == b'"release"':
            self.released.set()
        await self.released.wait()
        return PlainTextResponse('"done"')


app = Model.bind()
"""


def test_a_request_that_waits_does_not_hold_the_others(hosting: HostingClient) -> None:
    model = application(hosting, {"config.yaml": CONFIG, "deployment.py": WAITING_FOR_ANOTHER})
    endpoint = hosting.endpoint(hosting.config(model))
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(invoke_text, hosting, endpoint, "wait") for _ in range(4)]
        assert invoke_text(hosting, endpoint, "release") == "done"
        assert [one.result() for one in waiting] == ["done"] * 4
    hosting.delete(endpoint)


def invoke_text(hosting: HostingClient, endpoint: str, text: str) -> str:
    response = hosting.inference.invoke_endpoint(
        EndpointName=endpoint, Body=json.dumps(text), ContentType="application/json"
    )
    result: str = json.loads(response["Body"].read())
    return result


def test_names_that_exist_or_do_not(hosting: HostingClient, endpoint: str) -> None:
    config = hosting.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    with pytest.raises(ClientError) as error:
        hosting.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert error.value.response["Error"]["Message"].startswith("Cannot create already existing endpoint")
    with pytest.raises(ClientError, match="Could not find endpoint configuration"):
        hosting.sagemaker.create_endpoint(EndpointName=unique("endpoint"), EndpointConfigName="nobody")
    for call in (hosting.sagemaker.describe_endpoint, hosting.sagemaker.delete_endpoint):
        with pytest.raises(ClientError, match="Could not find endpoint") as error:
            call(EndpointName="nobody")
        assert error.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError) as error:
        hosting.invoke("nobody")
    assert error.value.response["Error"]["Code"] == "ValidationError"


def test_an_endpoint_in_transition_cannot_be_changed(hosting: HostingClient) -> None:
    name, config = unique("endpoint"), hosting.config(hosting.model("young"))
    hosting.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    assert hosting.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        hosting.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        hosting.sagemaker.delete_endpoint(EndpointName=name)
    hosting.settled(name)
    hosting.delete(name)
    hosting.endpoint(config, name)
    hosting.delete(name)


INVOKE = """
import sys
import boto3
from sagemaker.core.resources import Endpoint
from sagemaker.core.utils.utils import SageMakerClient
SageMakerClient(session=boto3.Session(region_name="us-east-1"), region_name="us-east-1")
resource = Endpoint.get(endpoint_name=sys.argv[1], region="us-east-1")
resource.wait_for_status("InService", poll=1, timeout=30)
assert resource.endpoint_status == "InService"
response = resource.invoke(body=b'{"value": 4}', content_type="application/json")
assert b'"value":4.0' in response.body.read()
"""


def test_the_sdk_resource_works(hosting: HostingClient, endpoint: str) -> None:
    run_sdk(hosting.runtime, INVOKE, endpoint)
