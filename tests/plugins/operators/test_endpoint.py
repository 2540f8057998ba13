"""Deployments against a local SageMaker that serves: guardrails, rollbacks, and what a retry finds."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException
from retraining.aws.clients import Aws
from retraining.aws.s3 import split_uri
from retraining.config.sections import Alarms, Deployment
from retraining.errors import DeploymentError
from retraining.operators.endpoint import EndpointOperator
from retraining.planning.deployment import VARIANT, alarm_requests, alarms_of, deployment_config

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.plugins.conftest import MakeSettings
from tests.plugins.models import deployment_request, put_model, register_model
from tests.plugins.operators.deferral import complete
from tests.plugins.traffic import traffic

ALARMS = Alarms(max_5xx=3, max_latency_ms=2000)
BROKEN = {"load": "raise ValueError('no weights')"}

Deploy = Callable[..., Any]


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
    """One response of the endpoint."""
    client = runtime.client("sagemaker-runtime")

    def ask() -> str:
        response = client.invoke_endpoint(EndpointName=name, ContentType="text/plain", Body=b"?")
        return str(response["Body"].read().decode())

    return ask


@pytest.fixture
def request_for(runtime: RuntimeProcess, name: str) -> Deploy:
    """The request that deploys a version; keywords are those of `put_model`."""

    def make(version: int, response: str = "woof", **behaviour: str) -> Any:
        key = f"endpoint/{name}/{version}/model.tar.gz"
        artifact = put_model(runtime.client("s3"), key, response, **behaviour)
        return deployment_request(f"{name}-v{version}", name, artifact)

    return make


@pytest.fixture
def guard(make_settings: MakeSettings, name: str) -> Deploy:
    """A request with alarms and a canary of half of the traffic, which is one of two instances."""

    def add(request: Any, bake_seconds: int = 2) -> Any:
        deployment = Deployment(share_percent=50, alarms=ALARMS)
        alarms = [alarm["AlarmName"] for alarm in alarm_requests(ALARMS, name, VARIANT)]
        settings = make_settings(bake_seconds=bake_seconds, endpoint_instance_count=2)
        config = deployment_config(deployment, settings, alarms)
        [variant] = request["EndpointConfig"]["ProductionVariants"]
        fleet = {"ProductionVariants": [{**variant, "InitialInstanceCount": 2}]}
        return {
            **request,
            "EndpointConfig": {**request["EndpointConfig"], **fleet},
            "Endpoint": {**request["Endpoint"], "DeploymentConfig": config},
        }

    return add


def deploy(request: Any, **arguments: Any) -> Any:
    """What the task `deploy` returns; a request with alarms gets them put first."""
    endpoint = request["Endpoint"]
    watched = alarms_of(endpoint.get("DeploymentConfig"))
    alarms = alarm_requests(ALARMS, endpoint["EndpointName"], VARIANT) if watched else []
    for alarm in alarms:
        alarm["EvaluationPeriods"] = alarm["DatapointsToAlarm"] = 1  # the second minute would show the same
    return complete(
        lambda: EndpointOperator(
            task_id="deploy",
            config=copy.deepcopy(request),
            alarms=alarms,
            **{"deferrable": True, **arguments},
        )
    )


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
        deploy(broken, package=package)
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["ModelApprovalStatus"] == "Rejected"
    assert "was rolled back" in described["ApprovalDescription"]
    assert ask() == "wuff"

    with pytest.raises(DeploymentError, match=f"runs {name}-v2, not {name}-v1 any more"):
        deploy(request_for(4), replaces=f"{name}-v1")
    with pytest.raises(DeploymentError, match=f"runs {name}-v2, and did not exist before"):
        deploy(request_for(4), replaces=None)
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
        deploy(request, package=package)
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
    deploy(request_for(1))

    def finish(*_: Any, **__: Any) -> Any:
        raise ConnectionError("the worker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(EndpointOperator, "finish", finish)
        with pytest.raises(ConnectionError):
            deploy(request_for(2))
    result = deploy(request_for(2))
    assert (result["previous"], result["config"], result["created"]) == (f"{name}-v1", f"{name}-v2", False)


def test_a_guarded_update_goes_through_its_stages(
    request_for: Deploy,
    guard: Deploy,
    name: str,
    aws: Aws,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = guard(request_for(1))
    deploy(request)
    request = guard(request_for(2), bake_seconds=6)  # three polls
    deploy(request)
    log = capsys.readouterr().out
    assert "50% of the traffic goes to the new fleet" in log
    assert f"Alarm {name}-5xx is OK" in log
    used = aws.sagemaker.describe_endpoint(EndpointName=name)["LastDeploymentConfig"]
    assert used == request["Endpoint"]["DeploymentConfig"]
    assert alarms_of(used) == [f"{name}-5xx", f"{name}-latency"]
    alarms = aws.cloudwatch.describe_alarms(AlarmNames=alarms_of(used))["MetricAlarms"]
    assert {alarm["MetricName"] for alarm in alarms} == {"Invocation5XXErrors", "ModelLatency"}
    assert {"Name": "VariantName", "Value": VARIANT} in alarms[0]["Dimensions"]


def test_an_alarm_rolls_back_with_its_figures(  # noqa: PLR0917
    request_for: Deploy,
    guard: Deploy,
    name: str,
    ask: Callable[[], str],
    runtime: RuntimeProcess,
    aws: Aws,
) -> None:
    deploy(guard(request_for(1, predict="report(0)")))
    bad = guard(request_for(2, predict="report(1); raise ValueError('wrong shape')"), bake_seconds=60)
    package = register_model(aws, name, bad["Model"]["PrimaryContainer"]["ModelDataUrl"])
    with traffic(runtime, name) as seen:
        with pytest.raises(DeploymentError) as error:
            deploy(bad, package=package)
        count = seen.requests
        wait_for(lambda: seen.requests > count + 20, 30, "traffic after the rollback")
    text = str(error.value)
    assert f"was rolled back: it is InService with {name}-v1, not {name}-v2" in text
    assert f"Alarm {name}-5xx is ALARM" in text
    assert "datapoints breach the threshold (3)" in text
    assert 0 < seen.failed <= seen.requests / 2
    assert re.search(r"Of the new model's requests (\d+) of \1 failed, of the old model's 0 of \d+", text)
    assert aws.sagemaker.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"] == "Rejected"
    assert ask() == "woof"

    deploy(guard(request_for(3, "fixed")), patience_seconds=0)
    assert ask() == "fixed"


def test_a_slow_canary_is_rolled_back_without_a_failed_request(
    request_for: Deploy, guard: Deploy, name: str, runtime: RuntimeProcess, aws: Aws
) -> None:
    deploy(guard(request_for(1)))
    slow = guard(request_for(2, predict="time.sleep(3)"), bake_seconds=60)
    package = register_model(aws, name, slow["Model"]["PrimaryContainer"]["ModelDataUrl"])
    with traffic(runtime, name) as seen, pytest.raises(DeploymentError) as error:
        deploy(slow, package=package)
    assert f"Alarm {name}-latency is ALARM" in str(error.value)
    assert "too little to compare. So the model is not rejected" in str(
        error.value
    )  # these models say nothing
    assert aws.sagemaker.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"] == "Approved"
    assert (seen.succeeded > 0, seen.failed) == (True, 0)


def test_waiting_has_an_end(request_for: Deploy, guard: Deploy, name: str) -> None:
    deploy(request_for(1))
    slow = guard(request_for(2), bake_seconds=4)
    with pytest.raises(DeploymentError, match=r"still Updating after 1 s.*raise deployment\.max_runtime"):
        deploy(slow, limit_seconds=1)
    assert deploy(slow)["previous"] == f"{name}-v1"


def test_a_model_that_was_not_approved_is_not_deployed(request_for: Deploy, name: str, aws: Aws) -> None:
    approval = {"approved": False, "sentence": "The challenger stays out.", "by": None, "at": None}
    ti = Reasons()
    operator = EndpointOperator(task_id="deploy", config=request_for(1), approval=approval)  # type: ignore[arg-type]
    with pytest.raises(AirflowSkipException, match="The challenger stays out"):
        operator.execute(Context(ti=ti))  # type: ignore[typeddict-item]
    assert ti.pushed == {"reason": "The challenger stays out."}
    assert not aws.sagemaker.list_endpoints(NameContains=name)["Endpoints"]


class Reasons:
    """A task instance that keeps what is pushed."""

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def test_requests_and_responses_are_captured(
    request_for: Deploy, guard: Deploy, name: str, ask: Any, runtime: RuntimeProcess
) -> None:
    request = guard(request_for(1, '{"predictions": []}'))
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{BUCKET}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    }
    deploy({**request, "EndpointConfig": {**request["EndpointConfig"], "DataCaptureConfig": capture}})
    ask()
    s3 = runtime.client("s3")
    prefix = f"captured/{name}/{VARIANT}/"
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
