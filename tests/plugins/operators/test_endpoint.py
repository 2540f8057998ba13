"""Deployments against a local SageMaker that serves: guardrails, rollbacks, and what a retry finds."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk import Context
from retraining.aws.clients import Aws, split_uri
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Alarms, Deployment
from retraining.errors import DeploymentError
from retraining.operators.declared import EndpointOperator
from retraining.planning.deployment import VARIANT, alarms_of, deployment_parts, guarded
from retraining.runs.context import RunLocation

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.plugins.conftest import MakeSettings
from tests.plugins.models import deployment_request, put_model, register_model
from tests.plugins.traffic import traffic

BROKEN = {"load": "raise ValueError('no weights')"}

Deploy = Callable[..., dict[str, Any]]


@pytest.fixture
def sagemaker(runtime: RuntimeProcess) -> Any:
    return runtime.client("sagemaker")


@pytest.fixture
def name(sagemaker: Any) -> Iterator[str]:
    """An endpoint's name, which is free again after the test."""
    name = f"dogs-{uuid.uuid4().hex[:8]}"
    yield name
    if sagemaker.list_endpoints(NameContains=name)["Endpoints"]:
        sagemaker.delete_endpoint(EndpointName=name)


@pytest.fixture
def ask(runtime: RuntimeProcess, name: str) -> Callable[[], str]:
    """One answer of the endpoint."""
    client = runtime.client("sagemaker-runtime")

    def ask() -> str:
        response = client.invoke_endpoint(EndpointName=name, ContentType="text/plain", Body=b"?")
        return str(response["Body"].read().decode())

    return ask


@pytest.fixture
def request_for(runtime: RuntimeProcess, name: str) -> Deploy:
    """The request that deploys a version; keywords are those of `put_model`."""

    def make(version: int, answer: str = "woof", **behaviour: str) -> dict[str, Any]:
        key = f"endpoint/{name}/{version}/model.tar.gz"
        artifact = put_model(runtime.client("s3"), key, answer, **behaviour)
        return deployment_request(f"{name}-v{version}", name, artifact)

    return make


@pytest.fixture
def guard(pipeline: Pipeline, make_settings: MakeSettings, name: str) -> Callable[..., dict[str, Any]]:
    """A request with a canary of half of the traffic, alarms, and settings by keyword."""

    def add(request: dict[str, Any], bake_seconds: int = 2, **settings: Any) -> dict[str, Any]:
        deployment = Deployment(share_percent=50, alarms=Alarms(max_5xx=3, max_latency_ms=2000))
        capture = pipeline.endpoint.data_capture.model_copy(update={"percent": 100})
        endpoint = pipeline.endpoint.model_copy(update={"name": name, "data_capture": capture})
        own = pipeline.model_copy(update={"deployment": deployment, "endpoint": endpoint})
        values = make_settings(bake_seconds=bake_seconds, **settings)
        return guarded(request, deployment_parts(own, values, RunLocation(BUCKET, "dogs", "run")))

    return add


def deploy(request: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = EndpointOperator(task_id="deploy", config=request).execute(Context())
    return result


def test_an_endpoint_is_created_then_updated_then_left_alone_and_never_silently_rolled_back(
    request_for: Deploy, name: str, ask: Callable[[], str], aws: Aws
) -> None:
    created = deploy(request_for(1))
    assert (created["created"], created["previous"], created["config"]) == (True, None, f"{name}-v1")
    assert ask() == "woof"

    updated = deploy(request_for(2, "wuff"))
    assert (updated["created"], updated["previous"]) == (False, f"{name}-v1")
    assert ask() == "wuff"
    before = aws.sagemaker.describe_endpoint(EndpointName=name)["LastModifiedTime"]

    again = deploy(request_for(2, "wuff"))
    assert again == {**updated, "seconds": again["seconds"]}
    assert aws.sagemaker.describe_endpoint(EndpointName=name)["LastModifiedTime"] == before

    broken = request_for(3, **BROKEN)
    package = register_model(aws, name, broken["Model"]["PrimaryContainer"]["ModelDataUrl"])
    with pytest.raises(DeploymentError, match=f"rolled back.*{name}-v3"):
        deploy({**broken, "Package": package})
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["ModelApprovalStatus"] == "Rejected"
    assert "was rolled back" in described["ApprovalDescription"]
    assert ask() == "wuff"

    with pytest.raises(DeploymentError, match=f"runs {name}-v2, not {name}-v1 any more"):
        deploy({**request_for(4), "Replaces": f"{name}-v1"})
    with pytest.raises(DeploymentError, match=f"runs {name}-v2, and was not there before"):
        deploy({**request_for(4), "Replaces": None})
    assert ask() == "wuff"


def test_what_is_not_the_models_fault_does_not_reject_it(request_for: Deploy, name: str, aws: Aws) -> None:
    deploy(request_for(1))
    request = request_for(2)
    artifact = request["Model"]["PrimaryContainer"]["ModelDataUrl"]
    package = register_model(aws, name, artifact)
    aws.sagemaker.create_model(**request["Model"])
    bucket, key = split_uri(artifact)
    aws.s3.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(DeploymentError, match="was rolled back"):
        deploy({**request, "Package": package})
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["ModelApprovalStatus"] == "Approved"


def test_an_endpoint_that_failed_is_created_anew(request_for: Deploy) -> None:
    with pytest.raises(DeploymentError, match="is Failed"):
        deploy(request_for(1, **BROKEN))
    result = deploy(request_for(2))
    assert (result["created"], result["status"]) == (True, "InService")


def test_a_retry_after_the_update_was_accepted_names_the_true_predecessor(
    request_for: Deploy, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retraining.deployment.endpoint import Watch

    deploy(request_for(1))
    looks: list[str] = []
    rest = Watch.rest

    def dies(watch: Watch, limit: float) -> Any:
        looks.append(watch.endpoint)
        if len(looks) == 2:
            raise ConnectionError("the worker is gone")
        return rest(watch, limit)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "rest", dies)
        with pytest.raises(ConnectionError):
            deploy(request_for(2))
    result = deploy(request_for(2))
    assert (result["previous"], result["config"], result["created"]) == (f"{name}-v1", f"{name}-v2", False)


def test_a_guarded_update_goes_through_its_stages(
    request_for: Deploy,
    guard: Callable[..., dict[str, Any]],
    name: str,
    aws: Aws,
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = guard(request_for(1))
    deploy(request)
    request = guard(request_for(2))
    with caplog.at_level("INFO"):
        deploy(request)
    assert "50% of the traffic goes to the new fleet" in caplog.text
    assert f"Alarm {name}-5xx is OK" in caplog.text
    used = aws.sagemaker.describe_endpoint(EndpointName=name)["LastDeploymentConfig"]
    assert used == request["Endpoint"]["DeploymentConfig"]
    assert alarms_of(used) == [f"{name}-5xx", f"{name}-latency"]
    alarms = aws.cloudwatch.describe_alarms(AlarmNames=alarms_of(used))["MetricAlarms"]
    assert {alarm["MetricName"] for alarm in alarms} == {"Invocation5XXErrors", "ModelLatency"}
    assert {"Name": "VariantName", "Value": VARIANT} in alarms[0]["Dimensions"]


def test_an_alarm_rolls_back_with_its_figures(
    request_for: Deploy,
    guard: Callable[..., dict[str, Any]],
    name: str,
    ask: Callable[[], str],
    runtime: RuntimeProcess,
) -> None:
    deploy(guard(request_for(1)))
    bad = guard(request_for(2, predict="raise ValueError('wrong shape')"), bake_seconds=60)
    with traffic(runtime, name) as seen:
        with pytest.raises(DeploymentError) as error:
            deploy(bad)
        count = seen.requests
        wait_for(lambda: seen.requests > count + 20, 30, "traffic after the rollback")
    text = str(error.value)
    assert f"was rolled back: it is InService with {name}-v1, not {name}-v2" in text
    assert f"Alarm {name}-5xx is ALARM" in text
    assert "datapoints breach the threshold (3)" in text
    assert 0 < seen.failed <= seen.requests / 2
    assert ask() == "woof"

    remedy = guard(request_for(3, "fixed"))
    deploy({**remedy, "PatienceSeconds": 0})
    assert ask() == "fixed"


def test_a_slow_canary_is_rolled_back_without_a_failed_request(
    request_for: Deploy, guard: Callable[..., dict[str, Any]], name: str, runtime: RuntimeProcess
) -> None:
    deploy(guard(request_for(1)))
    slow = guard(request_for(2, predict="time.sleep(3)"), bake_seconds=60)
    with traffic(runtime, name) as seen, pytest.raises(DeploymentError) as error:
        deploy(slow)
    assert f"Alarm {name}-latency is ALARM" in str(error.value)
    assert (seen.answered > 0, seen.failed) == (True, 0)


def test_waiting_has_an_end(request_for: Deploy, guard: Callable[..., dict[str, Any]], name: str) -> None:
    deploy(request_for(1))
    slow = guard(request_for(2), bake_seconds=4)
    with pytest.raises(DeploymentError, match=r"still Updating after 1 s.*raise deployment\.max_runtime"):
        deploy({**slow, "LimitSeconds": 1})
    assert deploy(slow)["previous"] == f"{name}-v1"


def test_requests_and_answers_are_captured(
    request_for: Deploy, guard: Callable[..., dict[str, Any]], name: str, ask: Any, runtime: RuntimeProcess
) -> None:
    deploy(guard(request_for(1, '{"predictions": []}'), data_capture=True))
    ask()
    s3 = runtime.client("s3")
    prefix = f"retraining/dogs/data-capture/{name}/{VARIANT}/"
    [entry] = wait_for(
        lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents"), 30, "the capture file"
    )
    assert entry["Key"].endswith(".jsonl")
    [line] = s3.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read().decode().splitlines()
    record = json.loads(line)
    assert record["eventVersion"] == "0"
    assert record["eventMetadata"].keys() >= {"eventId", "inferenceTime"}
    assert record["captureData"]["endpointInput"]["mode"] == "INPUT"
    assert record["captureData"]["endpointOutput"]["data"]
