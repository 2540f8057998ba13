"""The requests that guard a deployment: as SageMaker's own model of its API has them, within its limits."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.validate import ParamValidator
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Alarms
from retraining.errors import PlanError
from retraining.planning.deployment import (
    VARIANT,
    alarm_requests,
    alarms_of,
    all_at_once,
    deployment_parts,
    guarded,
    longest_seconds,
)
from retraining.runs.context import RunLocation

from tests.plugins.conftest import MakeSettings
from tests.plugins.models import deployment_request

LOCATION = RunLocation("bucket", "dog_breed", "run")


def with_deployment(pipeline: Pipeline, **changes: Any) -> Pipeline:
    return pipeline.model_copy(update={"deployment": pipeline.deployment.model_copy(update=changes)})


def check(client: Any, operation: str, request: dict[str, Any]) -> None:
    """Raise for a request that the service's model refuses."""
    shape = client.meta.service_model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize(
    ("share", "routing"),
    [
        (10, {"Type": "ALL_AT_ONCE"}),
        (5, {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 5}}),
        (50, {"Type": "LINEAR", "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 50}}),
    ],
)
def test_every_strategy_is_a_request_that_sagemaker_takes(
    pipeline: Pipeline, make_settings: MakeSettings, aws: Aws, share: int, routing: Any
) -> None:
    pipeline = with_deployment(pipeline, share_percent=share, termination_wait_seconds=7)
    strategy = routing["Type"].lower()
    settings = make_settings(deployment_strategy=strategy, bake_seconds=60, data_capture=True)
    parts = deployment_parts(pipeline, settings, LOCATION)
    request = guarded(deployment_request("run", pipeline.endpoint_name, "s3://b/model.tar.gz"), parts)

    policy = request["Endpoint"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy == {
        "TrafficRoutingConfiguration": {**routing, "WaitIntervalInSeconds": 60},
        "TerminationWaitInSeconds": 7,
        "MaximumExecutionTimeoutInSeconds": pipeline.deployment.max_runtime_seconds,
    }
    assert request["EndpointConfig"]["DataCaptureConfig"]["DestinationS3Uri"] == (
        "s3://bucket/retraining/dog_breed/data-capture"
    )
    check(aws.sagemaker, "CreateEndpoint", request["Endpoint"])
    check(aws.sagemaker, "CreateEndpointConfig", request["EndpointConfig"])
    update = {key: value for key, value in request["Endpoint"].items() if key != "Tags"}
    check(aws.sagemaker, "UpdateEndpoint", update)
    for alarm in request["Alarms"]:
        check(aws.cloudwatch, "PutMetricAlarm", alarm)
    assert alarms_of(request["Endpoint"]["DeploymentConfig"]) == [a["AlarmName"] for a in request["Alarms"]]


def test_data_capture_is_left_out_where_it_is_off(pipeline: Pipeline, make_settings: MakeSettings) -> None:
    parts = deployment_parts(pipeline, make_settings(data_capture=False), LOCATION)
    assert parts["DataCaptureConfig"] is None
    assert (
        "DataCaptureConfig" not in guarded(deployment_request("a", "b", "s3://c/d"), parts)["EndpointConfig"]
    )


@pytest.mark.parametrize(
    ("deployment", "settings", "reason"),
    [
        ({"share_percent": 5}, {"deployment_strategy": "linear"}, "too small for linear steps"),
        (
            {"share_percent": 10, "max_runtime_seconds": 3600},
            {"deployment_strategy": "linear", "bake_seconds": 360},
            r"waits 3600 s \(10 steps of 360 s .*lower bake_seconds or raise",
        ),
        (
            {"max_runtime_seconds": 600, "termination_wait_seconds": 400},
            {"deployment_strategy": "canary", "bake_seconds": 100},
            "as long as it may take",
        ),
    ],
)
def test_what_sagemaker_would_refuse_is_a_plan_error(
    pipeline: Pipeline,
    make_settings: MakeSettings,
    deployment: dict[str, Any],
    settings: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(PlanError, match=reason):
        deployment_parts(with_deployment(pipeline, **deployment), make_settings(**settings), LOCATION)


def test_what_may_surprise_is_a_warning(
    pipeline: Pipeline, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = with_deployment(pipeline, share_percent=25)
    deployment_parts(pipeline, make_settings(deployment_strategy="canary", bake_seconds=300), LOCATION)
    assert "25 % of 1 instances is less than one instance" in caplog.text
    assert "4 endpoint instances" in caplog.text
    assert "period" not in caplog.text
    caplog.clear()
    settings = make_settings(deployment_strategy="canary", bake_seconds=5, endpoint_instance_count=4)
    deployment_parts(pipeline, settings, LOCATION)
    assert "bake time of 5 s is shorter than the alarms' period of 60 s" in caplog.text
    assert "less than one instance" not in caplog.text


def test_alarms_watch_errors_and_latency_of_the_variant() -> None:
    errors, latency = alarm_requests(Alarms(max_5xx=2, max_latency_ms=1500), "dogs", VARIANT)
    assert (errors["AlarmName"], errors["MetricName"], errors["Statistic"]) == (
        "dogs-5xx",
        "Invocation5XXErrors",
        "Sum",
    )
    assert (latency["AlarmName"], latency["MetricName"], latency["Threshold"]) == (
        "dogs-latency",
        "ModelLatency",
        1_500_000,  # microseconds
    )
    assert latency["ExtendedStatistic"] == "p99"
    assert {request["TreatMissingData"] for request in (errors, latency)} == {"notBreaching"}


def test_alarms_can_be_left_out() -> None:
    assert alarm_requests(Alarms(max_5xx=None, max_latency_ms=None), "dogs", VARIANT) == []
    config = all_at_once(600, 0, [])
    assert "AutoRollbackConfiguration" not in config
    assert alarms_of(config) == []
    assert longest_seconds(config) == 600 + longest_seconds(None)
