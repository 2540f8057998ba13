"""How a new model goes into service: traffic shifting, alarms that roll it back, data capture.

The limits are those of SageMaker's deployment guardrails:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html and
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_BlueGreenUpdatePolicy.html.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Alarms, Deployment
from retraining.errors import PlanError
from retraining.runs.context import RunLocation

log = logging.getLogger(__name__)

Request = dict[str, Any]

VARIANT = "AllTraffic"
"""The production variant's name. Guardrails need the same one before and after an update."""

STARTUP_SECONDS = 1800
"""What a fleet may take to start, beside the deployment's own time."""

_SMALLEST_STEP = 10  # percent of the fleet, of LinearStepSize
_CAPTURE_FOLDER = "data-capture"

# CloudWatch adds up the figures of the old fleet and the new one: in an average or a lower percentile, a
# slow canary of a few percent drowns in the answers of the old fleet.
_LATENCY_STATISTIC = "p99"
_MICROSECONDS = 1000  # of a millisecond; CloudWatch has ModelLatency in microseconds


def deployment_parts(pipeline: Pipeline, settings: RunSettings, location: RunLocation) -> dict[str, Any]:
    """What guards a run's deployment: `{DeploymentConfig, DataCaptureConfig or None, Alarms}`.

    `Alarms` are PutMetricAlarm requests. Raises PlanError for a combination that AWS refuses.
    """
    alarms = alarm_requests(pipeline.deployment.alarms, pipeline.endpoint_name, VARIANT)
    config = deployment_config(
        pipeline.deployment, settings, alarms=[request["AlarmName"] for request in alarms]
    )
    capture = (
        _data_capture(pipeline.endpoint.data_capture.percent, location) if settings.data_capture else None
    )
    return {"DeploymentConfig": config, "DataCaptureConfig": capture, "Alarms": alarms}


def guarded(request: Request, parts: dict[str, Any]) -> Request:
    """The request of EndpointOperator, `{Model, EndpointConfig, Endpoint}`, with the parts where it has
    them.
    """
    capture = parts["DataCaptureConfig"]
    config = {**request["EndpointConfig"], **({"DataCaptureConfig": capture} if capture else {})}
    endpoint = {**request["Endpoint"], "DeploymentConfig": parts["DeploymentConfig"]}
    return {**request, "EndpointConfig": config, "Endpoint": endpoint, "Alarms": parts["Alarms"]}


def deployment_config(deployment: Deployment, settings: RunSettings, *, alarms: list[str]) -> Request:
    """SageMaker's DeploymentConfig: a blue/green update that the alarms of these names roll back.

    Raises PlanError as `deployment_parts` does.
    """
    routing, steps = _routing(deployment, settings)
    waiting = steps * settings.bake_seconds + deployment.termination_wait_seconds
    if waiting >= deployment.max_runtime_seconds:
        raise PlanError(
            f"The deployment waits {waiting} s ({steps} steps of {settings.bake_seconds} s and "
            f"{deployment.termination_wait_seconds} s for the old fleet), as long as it may take "
            f"({deployment.max_runtime_seconds} s): lower bake_seconds or raise "
            "deployment.max_runtime_seconds."
        )
    _warn_of_blind_alarms(deployment, settings, alarms)
    config: Request = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": deployment.termination_wait_seconds,
            "MaximumExecutionTimeoutInSeconds": deployment.max_runtime_seconds,
        }
    }
    return with_alarms(config, alarms)


def all_at_once(max_runtime_seconds: int, bake_seconds: int, alarms: list[str]) -> Request:
    """A DeploymentConfig that moves all traffic in one step, watched by the alarms for `bake_seconds`."""
    policy = {
        "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": bake_seconds},
        "MaximumExecutionTimeoutInSeconds": max_runtime_seconds,
    }
    return with_alarms({"BlueGreenUpdatePolicy": policy}, alarms)


def with_alarms(config: Request, alarms: list[str]) -> Request:
    """The DeploymentConfig, rolled back by these alarms and no others."""
    others = {key: value for key, value in config.items() if key != "AutoRollbackConfiguration"}
    if not alarms:
        return others
    return {**others, "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}}


def alarms_of(config: Mapping[str, Any] | None) -> list[str]:
    """Names of the alarms that roll back a deployment with this DeploymentConfig."""
    alarms = ((config or {}).get("AutoRollbackConfiguration") or {}).get("Alarms", [])
    return [alarm["AlarmName"] for alarm in alarms]


def longest_seconds(config: Mapping[str, Any] | None) -> int:
    """Longest time for an update with this DeploymentConfig, the start of its fleet included."""
    policy = (config or {}).get("BlueGreenUpdatePolicy", {})
    return int(policy.get("MaximumExecutionTimeoutInSeconds", 0)) + STARTUP_SECONDS


def _routing(deployment: Deployment, settings: RunSettings) -> tuple[Request, int]:
    """The TrafficRoutingConfiguration and its number of steps."""
    share, wait = deployment.share_percent, settings.bake_seconds
    size = {"Type": "CAPACITY_PERCENT", "Value": share}
    if settings.deployment_strategy == "all_at_once":
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": wait}, 1
    _warn_of_small_fleet(share, settings.endpoint_instance_count)
    if settings.deployment_strategy == "canary":
        return {"Type": "CANARY", "WaitIntervalInSeconds": wait, "CanarySize": size}, 2
    if share < _SMALLEST_STEP:
        raise PlanError(
            f"deployment.share_percent {share} is too small for linear steps: AWS takes {_SMALLEST_STEP} to "
            "50. Raise it, or choose the strategy canary."
        )
    return {"Type": "LINEAR", "WaitIntervalInSeconds": wait, "LinearStepSize": size}, math.ceil(100 / share)


def _warn_of_small_fleet(share: int, instances: int) -> None:
    if instances * share < 100:
        log.warning(
            "%d %% of %d instances is less than one instance. SageMaker counts traffic steps in instances, "
            "so the first step may be larger than that; %d endpoint instances make it exact.",
            share,
            instances,
            math.ceil(100 / share),
        )


def _warn_of_blind_alarms(deployment: Deployment, settings: RunSettings, alarms: list[str]) -> None:
    period = deployment.alarms.period_seconds
    if alarms and settings.bake_seconds < period:
        log.warning(
            "A bake time of %d s is shorter than the alarms' period of %d s: CloudWatch looks at whole "
            "periods and may see a fault too late to roll it back.",
            settings.bake_seconds,
            period,
        )


def _data_capture(percent: int, location: RunLocation) -> Request:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": location.shared_uri(_CAPTURE_FOLDER),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }


def alarm_requests(alarms: Alarms, endpoint: str, variant: str) -> list[Request]:
    """PutMetricAlarm requests for the alarms that are wanted of a variant.

    A period without requests is not an alarm: an endpoint that nobody asks is not a broken one.
    """
    shared = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": variant},
        ],
        "Period": alarms.period_seconds,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    requests: list[Request] = []
    if alarms.max_5xx is not None:
        requests.append(
            {
                "AlarmName": f"{endpoint}-5xx",
                "AlarmDescription": f"The endpoint {endpoint} answers with status 5xx.",
                "MetricName": "Invocation5XXErrors",
                "Statistic": "Sum",
                "Threshold": float(alarms.max_5xx),
                **shared,
            }
        )
    if alarms.max_latency_ms is not None:
        requests.append(
            {
                "AlarmName": f"{endpoint}-latency",
                "AlarmDescription": f"The model of the endpoint {endpoint} is slow.",
                "MetricName": "ModelLatency",
                "ExtendedStatistic": _LATENCY_STATISTIC,
                "Threshold": alarms.max_latency_ms * _MICROSECONDS,
                **shared,
            }
        )
    return requests
