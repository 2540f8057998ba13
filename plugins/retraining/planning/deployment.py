"""How a new model goes into service: traffic shifting, alarms that roll it back, data capture.

The limits are those of SageMaker's deployment guardrails:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html and
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_BlueGreenUpdatePolicy.html.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Literal, cast

from retraining.aws.images import RAY_SERVE, has_gpu, model_server
from retraining.config.params import RunSettings
from retraining.config.sections import Alarms, Deployment
from retraining.errors import PlanError
from retraining.planning.account import tags_of
from retraining.planning.common import PlannedRun
from retraining.planning.images import serving_image
from retraining.runs.context import RunLocation
from retraining.runs.naming import attempt_name
from retraining.runs.results import DeploymentRequest

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef
    from mypy_boto3_sagemaker.literals import ProductionVariantInstanceTypeType
    from mypy_boto3_sagemaker.type_defs import (
        CreateEndpointConfigInputTypeDef,
        DataCaptureConfigTypeDef,
        DeploymentConfigOutputTypeDef,
        DeploymentConfigTypeDef,
        TrafficRoutingConfigTypeDef,
    )

    AnyDeploymentConfig = DeploymentConfigTypeDef | DeploymentConfigOutputTypeDef

log = logging.getLogger(__name__)

VARIANT = "AllTraffic"
"""The production variant's name. Guardrails need the same one before and after an update."""

STARTUP_SECONDS = 1800
"""How long a fleet may take to start, in addition to the deployment's own time."""

_GPU_AMI: Literal["al2-ami-sagemaker-inference-gpu-3-1"] = "al2-ami-sagemaker-inference-gpu-3-1"
"""The host's image for AWS's Ray Serve image on GPUs: the default one's NVIDIA drivers are too old for it."""

_SMALLEST_STEP = 10  # percent of the fleet, of LinearStepSize
_CAPTURE_FOLDER = "data-capture"

# CloudWatch combines the old fleet and the new one: in an average or a lower percentile, the slow responses
# of a small canary drown in those of the old fleet.
_LATENCY_STATISTIC = "p99"
_LATENCY_PERIODS = 2
"""Periods in a row that must be slow. AWS's images answer /ping before their model is loaded (TorchServe long
before, Ray Serve some seconds), so the first requests of a sound model wait.
"""
LATENCY = "ModelLatency"
"""CloudWatch's metric of the model's latency, in microseconds."""
MICROSECONDS = 1000  # in a millisecond


def deployment_request(run: PlannedRun, alarms: list[str]) -> DeploymentRequest:
    """Model, endpoint configuration and endpoint; the deployment is rolled back by the alarms of these names.

    The model's archive is added when it exists. Raises PlanError for a combination that AWS refuses.
    """
    endpoint, settings = run.pipeline.endpoint, run.settings
    name = attempt_name(run.name, 1)
    image = serving_image(run)
    config: CreateEndpointConfigInputTypeDef = {
        "EndpointConfigName": name,
        "ProductionVariants": [
            {
                "VariantName": VARIANT,
                "ModelName": name,
                "InitialInstanceCount": settings.endpoint_instance_count,
                "InstanceType": cast("ProductionVariantInstanceTypeType", settings.endpoint_instance_type),
                "InitialVariantWeight": 1.0,
            }
        ],
        "Tags": run.tags,
    }
    if model_server(image) == RAY_SERVE and has_gpu(settings.endpoint_instance_type):
        config["ProductionVariants"][0]["InferenceAmiVersion"] = _GPU_AMI
    if settings.data_capture:
        config["DataCaptureConfig"] = _data_capture(endpoint.data_capture.percent, run.location)
    return {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": {
                "Image": image,
                "Environment": {
                    "SAGEMAKER_PROGRAM": "inference.py",
                    "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                    "SAGEMAKER_CONTAINER_LOG_LEVEL": "20",
                    "SAGEMAKER_REGION": run.region,
                },
            },
            "ExecutionRoleArn": run.role,
            "Tags": run.tags,
        },
        "EndpointConfig": config,
        "Endpoint": {
            "EndpointName": run.pipeline.endpoint_name,
            "EndpointConfigName": name,
            "DeploymentConfig": deployment_config(run.pipeline.deployment, settings, alarms),
            "Tags": tags_of(run.pipeline),
        },
    }


def deployment_config(
    deployment: Deployment, settings: RunSettings, alarms: list[str]
) -> DeploymentConfigTypeDef:
    """SageMaker's DeploymentConfig: a blue/green update that the alarms of these names roll back.

    Raises PlanError for a combination that AWS refuses.
    """
    routing, steps = _routing(deployment, settings)
    waiting = steps * settings.bake_seconds + deployment.termination_wait_seconds
    if waiting >= deployment.max_runtime_seconds:
        raise PlanError(
            f"The deployment waits {waiting} s ({steps} steps of {settings.bake_seconds} s and "
            f"{deployment.termination_wait_seconds} s for the old fleet), but has only "
            f"{deployment.max_runtime_seconds} s in all: lower bake_seconds or raise "
            "deployment.max_runtime_seconds."
        )
    if alarms:
        periods = 1 if deployment.alarms.max_latency_ms is None else _LATENCY_PERIODS
        _warn_of_blind_alarms(deployment.alarms.period_seconds * periods, settings.bake_seconds)
    config: DeploymentConfigTypeDef = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": deployment.termination_wait_seconds,
            "MaximumExecutionTimeoutInSeconds": deployment.max_runtime_seconds,
        }
    }
    return with_alarms(config, alarms)


def all_at_once(max_runtime_seconds: int, bake_seconds: int, alarms: list[str]) -> DeploymentConfigTypeDef:
    """A DeploymentConfig that moves all traffic in one step, watched by the alarms for `bake_seconds`."""
    config: DeploymentConfigTypeDef = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": bake_seconds},
            "MaximumExecutionTimeoutInSeconds": max_runtime_seconds,
        }
    }
    return with_alarms(config, alarms)


def with_alarms(config: AnyDeploymentConfig, alarms: list[str]) -> DeploymentConfigTypeDef:
    """The DeploymentConfig, rolled back by these alarms and no others."""
    changed = cast("DeploymentConfigTypeDef", dict(config))
    changed.pop("AutoRollbackConfiguration", None)
    if alarms:
        changed["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return changed


def alarms_of(config: AnyDeploymentConfig | None) -> list[str]:
    """Names of the alarms that roll back a deployment with this DeploymentConfig."""
    rollback = config.get("AutoRollbackConfiguration") if config else None
    return [alarm["AlarmName"] for alarm in rollback.get("Alarms", [])] if rollback else []


def longest_seconds(config: AnyDeploymentConfig | None) -> int:
    """Longest time for an update with this DeploymentConfig, the start of its fleet included."""
    policy = config.get("BlueGreenUpdatePolicy") if config else None
    return (policy.get("MaximumExecutionTimeoutInSeconds", 0) if policy else 0) + STARTUP_SECONDS


def _routing(deployment: Deployment, settings: RunSettings) -> tuple[TrafficRoutingConfigTypeDef, int]:
    """The TrafficRoutingConfiguration and its number of steps. SageMaker moves whole instances."""
    share, wait, instances = (
        deployment.share_percent,
        settings.bake_seconds,
        settings.endpoint_instance_count,
    )
    strategy = settings.deployment_strategy
    if strategy == "auto":
        strategy = "canary" if instances > 1 else "all_at_once"
    if strategy == "all_at_once":
        return {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": wait}, 1
    if instances == 1:
        raise PlanError(
            f"The deployment strategy {strategy} needs two or more endpoint instances: SageMaker moves whole "
            "instances, at most half of them in the first step. Raise endpoint.instance_count, or choose "
            "auto or all_at_once."
        )
    if strategy == "canary":
        canary: TrafficRoutingConfigTypeDef = {
            "Type": "CANARY",
            "WaitIntervalInSeconds": wait,
            "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": share},
        }
        return canary, 2
    if share < _SMALLEST_STEP:
        raise PlanError(
            f"deployment.share_percent {share} is too small for linear steps: AWS takes {_SMALLEST_STEP} to "
            "50. Raise it, or choose the strategy canary."
        )
    linear: TrafficRoutingConfigTypeDef = {
        "Type": "LINEAR",
        "WaitIntervalInSeconds": wait,
        "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": share},
    }
    return linear, math.ceil(100 / share)


def _warn_of_blind_alarms(watched: int, bake: int) -> None:
    if bake < watched:
        log.warning(
            "A bake time of %d s is shorter than the alarms' periods of %d s: CloudWatch evaluates whole "
            "periods and may notice a fault too late to roll it back.",
            bake,
            watched,
        )


def _data_capture(percent: int, location: RunLocation) -> DataCaptureConfigTypeDef:
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": location.shared_uri(_CAPTURE_FOLDER),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }


def alarm_requests(alarms: Alarms, endpoint: str, variant: str) -> list[PutMetricAlarmInputTypeDef]:
    """PutMetricAlarm requests for the alarms that are wanted on a variant.

    A period without requests raises no alarm: an endpoint without traffic is not a broken one.
    """
    shared: PutMetricAlarmInputTypeDef = {
        "AlarmName": endpoint,
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
    requests: list[PutMetricAlarmInputTypeDef] = []
    if alarms.max_5xx is not None:
        requests.append(
            {
                **shared,
                "AlarmName": f"{endpoint}-5xx",
                "AlarmDescription": f"The endpoint {endpoint} responds with status 5xx.",
                "MetricName": "Invocation5XXErrors",
                "Statistic": "Sum",
                "Threshold": float(alarms.max_5xx),
            }
        )
    if alarms.max_latency_ms is not None:
        requests.append(
            {
                **shared,
                "AlarmName": f"{endpoint}-latency",
                "AlarmDescription": f"The model of the endpoint {endpoint} is slow.",
                "MetricName": LATENCY,
                "ExtendedStatistic": _LATENCY_STATISTIC,
                "EvaluationPeriods": _LATENCY_PERIODS,
                "DatapointsToAlarm": _LATENCY_PERIODS,
                "Threshold": alarms.max_latency_ms * MICROSECONDS,
            }
        )
    return requests
