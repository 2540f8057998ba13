"""Rollback: the previous live model, from the registry, goes back into service at the running endpoint.

Only the model changes; instances, data capture, execution role and network stay as they are.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, split_uri
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import Serving, at_rest, remembered_previous, serving
from retraining.deployment.inventory import is_of_run
from retraining.deployment.predictions import kept_images, latency, predict
from retraining.deployment.verify import check_in_service, check_model
from retraining.errors import RollbackError
from retraining.planning.account import tags_of
from retraining.planning.deployment import STARTUP_SECONDS, alarm_requests, all_at_once
from retraining.registry.registry import (
    LIVE_SINCE,
    artifact_of,
    mark_live,
    package_of,
    previous_live,
    reject,
)
from retraining.runs.naming import run_name
from retraining.runs.results import DeploymentRequest, EndpointResult, RollbackChoice, RollbackResult

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol as DagRun
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef
    from mypy_boto3_sagemaker.type_defs import (
        ContainerDefinitionTypeDef,
        CreateEndpointConfigInputTypeDef,
        CreateModelInputTypeDef,
        ModelPackageContainerDefinitionOutputTypeDef,
        TagTypeDef,
    )

log = logging.getLogger(__name__)

_IMAGES = 10


def choose(pipeline: Pipeline, aws: Aws, dag_run: DagRun) -> RollbackChoice:
    """Find the model to go back to, and build its deployment.

    If this run has deployed it already (a retry), the choice is the same again.
    Raises RollbackError if there is no such model.
    """
    live, group = _in_service(pipeline, aws), pipeline.package_group
    name = run_name(pipeline.slug, dag_run.run_id, dag_run.run_after)
    repeated = is_of_run(live.config_name, name)
    replaced = _replaced_by(live, aws) if repeated else live
    package = package_of(aws, group, live.artifact or "") if repeated else None
    package = package or previous_live(aws, group, replaced.artifact)
    if package is None:
        raise RollbackError(
            f"The registry's group {group} has no approved version that was in service before "
            f"{replaced.artifact}. Start {pipeline.dag_id} to train another model, or approve an older "
            "version and deploy it by hand."
        )
    artifact, version = artifact_of(package), package["ModelPackageVersion"]
    if artifact is None or not exists(aws.s3, artifact):
        raise RollbackError(
            f"Version {version} of {group} was in service before, but its archive {artifact} was deleted. "
            "Restore the object, or reject the version so that a rollback skips it."
        )
    since = package["CustomerMetadataProperties"].get(LIVE_SINCE)
    log.info(
        "Rolling back from %s (%s) to version %s, in service since %s: %s",
        replaced.config_name,
        replaced.artifact,
        version,
        since,
        artifact,
    )
    current = package_of(aws, group, replaced.artifact) if replaced.artifact else None
    container = package["InferenceSpecification"]["Containers"][0]
    alarms = alarm_requests(pipeline.deployment.alarms, pipeline.endpoint_name, live.variant["VariantName"])
    return {
        "deployment": _deployment(pipeline, name, live, container, alarms),
        "alarms": alarms,
        "replaces": live.config_name,
        "package": package["ModelPackageArn"],
        "replaced": {
            "config": replaced.config_name,
            "artifact": replaced.artifact,
            "package": current["ModelPackageArn"] if current else None,
        },
        "target": {
            "package": package["ModelPackageArn"],
            "version": version,
            "artifact": artifact,
            "live_since": since,
        },
    }


def finish_rollback(
    pipeline: Pipeline,
    chosen: RollbackChoice,
    endpoint: EndpointResult,
    aws: Aws,
    *,
    who: str | None,
    why: str,
) -> RollbackResult:
    """Check that the chosen model serves, and record the rollback in the registry.

    The replaced model is rejected in any case, so that no later rollback leads back to it.
    Raises VerificationError if another model serves, or if the endpoint does not respond.
    """
    target, replaced = chosen["target"], chosen["replaced"]
    check_in_service(aws, endpoint["name"], endpoint["config"])
    check_model(aws, endpoint["config"], target["artifact"])
    now = datetime.now(UTC)
    sentence = (
        f"Rolled back by {who or 'somebody'} on {now:%Y-%m-%d %H:%M} UTC ({why or 'no reason given'}): "
        f"{pipeline.endpoint_name} went from {replaced['config']} to version {target['version']}."
    )
    if replaced["package"]:
        reject(aws, replaced["package"], sentence)
    bucket, images = _test_images(aws, target["package"])
    predictions = [
        predict(aws, endpoint["name"], bucket, key, name.partition("/")[0]) for name, key in images.items()
    ]
    for prediction in predictions:
        log.info("%(image)s: %(predicted)s (%(probability).2f), %(milliseconds).0f ms", prediction)
    mark_live(aws, target["package"], now, endpoint["config"])
    log.info("%s", sentence)
    return {
        "endpoint": endpoint["name"],
        "config": endpoint["config"],
        "replaced": replaced,
        "target": target,
        "sentence": sentence,
        "images": len(predictions),
        "latency_ms": latency(predictions) if predictions else None,
    }


def _replaced_by(live: Serving, aws: Aws) -> Serving:
    """What this run's configuration has replaced. Raises RollbackError if that was deleted."""
    previous = remembered_previous(aws, live.config_name)
    replaced = serving(aws, previous) if previous else None
    if replaced is None:
        raise RollbackError(
            f"{live.config_name}, which this run deployed, is in service, but {previous}, which it replaced, "
            "was deleted. Start another rollback to go back further."
        )
    return replaced


def _in_service(pipeline: Pipeline, aws: Aws) -> Serving:
    name = pipeline.endpoint_name
    limit_seconds = pipeline.deployment.max_runtime_seconds + STARTUP_SECONDS
    description = at_rest(aws, name, limit_seconds)
    if description is None or description["EndpointStatus"] != "InService":
        status = description["EndpointStatus"] if description else "not there"
        raise RollbackError(f"The endpoint {name} is {status}: start {pipeline.dag_id} to deploy a model.")
    live = serving(aws, description["EndpointConfigName"])
    if live is None:
        raise RollbackError(
            f"The endpoint {name} runs {description['EndpointConfigName']}, but that configuration or its "
            "model was deleted, and SageMaker does not update such an endpoint. Delete it and start "
            f"{pipeline.dag_id}."
        )
    return live


def _deployment(
    pipeline: Pipeline,
    name: str,
    live: Serving,
    container: ModelPackageContainerDefinitionOutputTypeDef,
    alarms: list[PutMetricAlarmInputTypeDef],
) -> DeploymentRequest:
    """The live deployment with the model of `container`."""
    tags = tags_of(pipeline, run=name)
    deployment = pipeline.deployment
    bake_seconds = min(deployment.bake_seconds, deployment.alarms.period_seconds) if alarms else 0
    guard = all_at_once(
        deployment.max_runtime_seconds, bake_seconds, [alarm["AlarmName"] for alarm in alarms]
    )
    config: CreateEndpointConfigInputTypeDef = {
        "EndpointConfigName": name,
        "ProductionVariants": [{**live.variant, "ModelName": name}],
        "Tags": tags,
    }
    if capture := live.config.get("DataCaptureConfig"):
        config["DataCaptureConfig"] = capture
    if key := live.config.get("KmsKeyId"):
        config["KmsKeyId"] = key
    return {
        "Model": _model(name, live, container, tags),
        "EndpointConfig": config,
        "Endpoint": {
            "EndpointName": pipeline.endpoint_name,
            "EndpointConfigName": name,
            "DeploymentConfig": guard,
        },
    }


def _model(
    name: str,
    live: Serving,
    packaged: ModelPackageContainerDefinitionOutputTypeDef,
    tags: list[TagTypeDef],
) -> CreateModelInputTypeDef:
    container: ContainerDefinitionTypeDef = {"Image": packaged["Image"]}
    if url := packaged.get("ModelDataUrl"):
        container["ModelDataUrl"] = url
    if source := packaged.get("ModelDataSource"):
        container["ModelDataSource"] = source
    if environment := packaged.get("Environment"):
        container["Environment"] = environment
    model: CreateModelInputTypeDef = {"ModelName": name, "PrimaryContainer": container, "Tags": tags}
    if role := live.model.get("ExecutionRoleArn"):
        model["ExecutionRoleArn"] = role
    if network := live.model.get("VpcConfig"):
        model["VpcConfig"] = network
    if live.model.get("EnableNetworkIsolation"):
        model["EnableNetworkIsolation"] = True
    return model


def _test_images(aws: Aws, package: str) -> tuple[str, dict[str, str]]:
    """Bucket and keys of the test images that the version's own evaluation kept; none if they are gone."""
    metadata = aws.sagemaker.describe_model_package(ModelPackageName=package).get(
        "CustomerMetadataProperties", {}
    )
    output = metadata.get("evaluation", "")
    bucket, _ = split_uri(output)
    images = kept_images(aws.s3, output) if output else {}
    if not images:
        log.warning("The evaluation of %s kept no test images: no predictions are checked", package)
    return bucket, dict(list(images.items())[:_IMAGES])
