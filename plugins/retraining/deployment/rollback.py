"""Going back: the model that was in service before, from the registry, into the endpoint that runs.

Everything but the model stays as it is: machines, capture of data, execution role, network.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws, bucket_of, split_uri
from retraining.aws.responses import as_json
from retraining.aws.s3 import exists
from retraining.config.pipeline import Pipeline
from retraining.deployment.alarms import alarm_requests
from retraining.deployment.endpoint import Serving, Watch, remembered_previous, serving
from retraining.deployment.inventory import is_of_run
from retraining.deployment.predictions import ask, latency, sample, test_keys
from retraining.deployment.verify import check_in_service, check_model
from retraining.errors import RollbackError
from retraining.planning.deployment import STARTUP_SECONDS, all_at_once
from retraining.registry.registry import (
    LIVE_SINCE,
    artifact_of,
    package_of,
    previous_live,
    proved,
    rejected,
)
from retraining.runs.naming import run_name

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol as DagRun

log = logging.getLogger(__name__)

Result = Mapping[str, Any]

_PICTURES = 10
_KEPT_OF_MODEL = ("ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation")
_KEPT_OF_CONFIG = ("DataCaptureConfig", "KmsKeyId")
_KEPT_OF_CONTAINER = ("Image", "ModelDataUrl", "ModelDataSource", "Environment")


def choose(pipeline: Pipeline, aws: Aws, dag_run: DagRun) -> dict[str, Any]:
    """Find the model to go back to, and build the deployment that does it; again the same where the run has
    deployed it already.

    Returns `{request, replaced: {config, artifact, package or None}, target: {package, version, artifact,
    live_since}}`; `request` is that of EndpointOperator. Raises RollbackError where there is none.
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
            f"Version {version} of {group} was in service before, but its archive {artifact} is gone. "
            "Restore the object, or reject the version so that a rollback passes over it."
        )
    current = package_of(aws, group, replaced.artifact) if replaced.artifact else None
    target = {
        "package": package["ModelPackageArn"],
        "version": version,
        "artifact": artifact,
        "live_since": package["CustomerMetadataProperties"].get(LIVE_SINCE),
    }
    log.info(
        "From %s (%s) back to version %s, in service since %s: %s",
        replaced.config_name,
        replaced.artifact,
        version,
        target["live_since"],
        artifact,
    )
    return {
        "request": _request(pipeline, name, live, package),
        "replaced": {
            "config": replaced.config_name,
            "artifact": replaced.artifact,
            "package": current["ModelPackageArn"] if current else None,
        },
        "target": target,
    }


def settle_rollback(
    *, pipeline: Pipeline, chosen: Result, endpoint: Result, aws: Aws, who: str | None, why: str
) -> dict[str, Any]:
    """Check that the chosen model serves, and write down in the registry what was done.

    The model that was replaced is rejected in any case: a later rollback must not lead back to it.
    Returns `{endpoint, config, replaced, target, sentence, images, latency_ms or None}`.
    Raises VerificationError where another model serves, or the endpoint does not answer.
    """
    target, replaced = chosen["target"], chosen["replaced"]
    check_in_service(aws, endpoint["name"], endpoint["config"])
    check_model(aws, endpoint["config"], target["artifact"])
    now = datetime.now(UTC)
    sentence = (
        f"Rolled back by {who or 'an unnamed user'} on {now:%Y-%m-%d %H:%M} UTC "
        f"({why or 'no reason given'}): {pipeline.endpoint_name} went from {replaced['config']} to version "
        f"{target['version']}."
    )
    if replaced["package"]:
        rejected(aws, replaced["package"], sentence)
    bucket, keys = _pictures(pipeline, aws)
    answers = [ask(aws, endpoint["name"], bucket, key) for key in keys]
    for answer in answers:
        log.info("%(image)s: %(predicted)s (%(probability).2f), %(milliseconds).0f ms", answer)
    proved(aws, target["package"], now, endpoint["config"])
    log.info("%s", sentence)
    return {
        "endpoint": endpoint["name"],
        "config": endpoint["config"],
        "replaced": replaced,
        "target": target,
        "sentence": sentence,
        "images": len(answers),
        "latency_ms": latency(answers) if answers else None,
    }


def _replaced_by(live: Serving, aws: Aws) -> Serving:
    """What this run's own configuration has replaced already. Raises RollbackError where that is gone."""
    previous = remembered_previous(aws, live.config_name)
    replaced = serving(aws, previous) if previous else None
    if replaced is None:
        raise RollbackError(
            f"{live.config_name}, which this run deployed, is in service, but {previous}, which it replaced, "
            "is gone. Start another rollback to go back further."
        )
    return replaced


def _in_service(pipeline: Pipeline, aws: Aws) -> Serving:
    name = pipeline.endpoint_name
    description = Watch(aws, name).rest(pipeline.deployment.max_runtime_seconds + STARTUP_SECONDS)
    if description is None or description["EndpointStatus"] != "InService":
        status = description["EndpointStatus"] if description else "not there"
        raise RollbackError(f"The endpoint {name} is {status}: start {pipeline.dag_id} to deploy a model.")
    live = serving(aws, description["EndpointConfigName"])
    if live is None:
        raise RollbackError(
            f"The endpoint {name} runs {description['EndpointConfigName']}, which was deleted, as was what "
            "it would be rebuilt from. SageMaker does not update such an endpoint: delete it and start "
            f"{pipeline.dag_id}."
        )
    return live


def _request(pipeline: Pipeline, name: str, live: Serving, package: Result) -> dict[str, Any]:
    """The request of EndpointOperator. Alarms that are on already do not hold it up."""
    container = package["InferenceSpecification"]["Containers"][0]
    tags = [{"Key": "pipeline", "Value": pipeline.name}, {"Key": "run", "Value": name}]
    deployment = pipeline.deployment
    alarms = alarm_requests(deployment.alarms, pipeline.endpoint_name, live.variant["VariantName"])
    bake = min(deployment.bake_seconds, deployment.alarms.period_seconds) if alarms else 0
    guard = all_at_once(deployment.max_runtime_seconds, bake, [alarm["AlarmName"] for alarm in alarms])
    request = {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": _members(container, _KEPT_OF_CONTAINER),
            "Tags": tags,
            **_members(live.model, _KEPT_OF_MODEL),
        },
        "EndpointConfig": {
            "EndpointConfigName": name,
            "ProductionVariants": [{**live.variant, "ModelName": name}],
            "Tags": tags,
            **_members(live.config, _KEPT_OF_CONFIG),
        },
        "Endpoint": {
            "EndpointName": pipeline.endpoint_name,
            "EndpointConfigName": name,
            "DeploymentConfig": guard,
        },
        "Alarms": alarms,
        "Package": package["ModelPackageArn"],
        "Replaces": live.config_name,
        "PatienceSeconds": 0,
    }
    plain: dict[str, Any] = as_json(request)
    return plain


def _members(answer: Result, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: answer[name] for name in names if answer.get(name)}


def _pictures(pipeline: Pipeline, aws: Aws) -> tuple[str, list[str]]:
    """Bucket and keys of a few pictures of the test split; none where the data set is elsewhere by now."""
    prefix = pipeline.dataset.prefix or f"datasets/{pipeline.name}"
    if prefix.startswith("s3://"):
        bucket, prefix = split_uri(prefix)
    else:
        bucket = bucket_of(aws, pipeline.bucket)
    keys = sample(test_keys(aws.s3, {"bucket": bucket, "prefix": prefix.strip("/")}, None), _PICTURES)
    if not keys:
        log.warning("No test pictures in s3://%s/%s: the endpoint is not asked anything", bucket, prefix)
    return bucket, keys
