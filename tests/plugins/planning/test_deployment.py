"""The requests that guard a deployment: as SageMaker's own model of its API has them, within its limits."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.validate import ParamValidator
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Alarms, Deployment
from retraining.errors import PlanError
from retraining.planning.deployment import (
    VARIANT,
    alarm_requests,
    alarms_of,
    all_at_once,
    deployment_config,
    longest_seconds,
)

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import MakeSettings
from tests.plugins.plans import MakePlan, make_plan, source

__all__ = ["make_plan", "source"]  # fixtures


def changed(pipeline: Pipeline, **changes: Any) -> Deployment:
    return pipeline.deployment.model_copy(update=changes)


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
    pipeline: Pipeline, make_plan: MakePlan, aws: Aws, share: int, routing: Any
) -> None:
    changed = {**pipeline.deployment.model_dump(), "share_percent": share, "termination_wait_seconds": 7}
    plan = make_plan(
        of={"deployment": changed},
        deployment_strategy=routing["Type"].lower(),
        endpoint_instance_count=2,
        bake_seconds=60,
        data_capture=True,
    )
    request = plan["deployment"]
    policy = request["Endpoint"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy == {
        "TrafficRoutingConfiguration": {**routing, "WaitIntervalInSeconds": 60},
        "TerminationWaitInSeconds": 7,
        "MaximumExecutionTimeoutInSeconds": pipeline.deployment.max_runtime_seconds,
    }
    assert request["EndpointConfig"]["DataCaptureConfig"]["DestinationS3Uri"] == (
        f"s3://{BUCKET}/retraining/dog_breed/data-capture"
    )
    check(aws.sagemaker, "CreateEndpoint", request["Endpoint"])
    check(aws.sagemaker, "CreateEndpointConfig", request["EndpointConfig"])
    update = {key: value for key, value in request["Endpoint"].items() if key != "Tags"}
    check(aws.sagemaker, "UpdateEndpoint", update)
    for alarm in plan["alarms"]:
        check(aws.cloudwatch, "PutMetricAlarm", alarm)
    assert alarms_of(request["Endpoint"]["DeploymentConfig"]) == [a["AlarmName"] for a in plan["alarms"]]


def test_data_capture_is_left_out_where_it_is_off(make_plan: MakePlan) -> None:
    assert "DataCaptureConfig" not in make_plan(data_capture=False)["deployment"]["EndpointConfig"]


@pytest.mark.parametrize(
    ("deployment", "settings", "reason"),
    [
        ({}, {"deployment_strategy": "canary"}, "canary needs two or more endpoint instances"),
        ({}, {"deployment_strategy": "linear"}, "linear needs two or more endpoint instances"),
        (
            {"share_percent": 5},
            {"deployment_strategy": "linear", "endpoint_instance_count": 10},
            "too small for linear steps",
        ),
        (
            {"share_percent": 10, "max_runtime_seconds": 3600},
            {"deployment_strategy": "linear", "bake_seconds": 360, "endpoint_instance_count": 2},
            r"waits 3600 s \(10 steps of 360 s .*lower bake_seconds or raise",
        ),
        (
            {"max_runtime_seconds": 600, "termination_wait_seconds": 400},
            {"deployment_strategy": "canary", "bake_seconds": 100, "endpoint_instance_count": 2},
            r"but has only 600 s in all",
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
        deployment_config(changed(pipeline, **deployment), make_settings(**settings), [])


def test_a_bake_time_that_the_alarms_cannot_use_is_a_warning(
    pipeline: Pipeline, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    deployment_config(pipeline.deployment, make_settings(bake_seconds=120), ["dogs-5xx"])
    assert "period" not in caplog.text
    deployment_config(pipeline.deployment, make_settings(bake_seconds=100), ["dogs-5xx"])
    assert "bake time of 100 s is shorter than the alarms' periods of 120 s" in caplog.text


@pytest.mark.parametrize(("instances", "routing"), [(1, "ALL_AT_ONCE"), (2, "CANARY"), (10, "CANARY")])
def test_by_itself_traffic_moves_all_at_once_with_one_instance_else_by_a_canary(
    pipeline: Pipeline, make_settings: MakeSettings, instances: int, routing: str
) -> None:
    config = deployment_config(pipeline.deployment, make_settings(endpoint_instance_count=instances), [])
    assert config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == routing


def test_the_image_decides_about_the_hosts_drivers(make_plan: MakePlan) -> None:
    def planned(instance_type: str, image: str | None = None) -> tuple[str, str | None]:
        plan = make_plan(of={"endpoint": {"image_uri": image}}, endpoint_instance_type=instance_type)
        [variant] = plan["deployment"]["EndpointConfig"]["ProductionVariants"]
        uri = plan["deployment"]["Model"]["PrimaryContainer"]["Image"]
        return uri.partition("/")[2], variant.get("InferenceAmiVersion")

    torchserve = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-gpu-py312"
    ami = "al2-ami-sagemaker-inference-gpu-3-1"
    assert planned("ml.m5.large") == ("ray:serve-ml-sagemaker-cpu-v1.4", None)
    assert planned("ml.g5.xlarge") == ("ray:serve-ml-sagemaker-cuda-v1.4", ami)
    assert planned("ml.g5.xlarge", torchserve) == ("pytorch-inference:2.6.0-gpu-py312", None)


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
    assert errors["EvaluationPeriods"] == 1
    assert latency["EvaluationPeriods"] == latency["DatapointsToAlarm"] == 2  # the first requests may wait
    assert {request["TreatMissingData"] for request in (errors, latency)} == {"notBreaching"}


def test_alarms_can_be_left_out() -> None:
    assert alarm_requests(Alarms(max_5xx=None, max_latency_ms=None), "dogs", VARIANT) == []
    config = all_at_once(600, 0, [])
    assert "AutoRollbackConfiguration" not in config
    assert alarms_of(config) == []
    assert longest_seconds(config) == 600 + longest_seconds(None)
