"""What a run will ask of SageMaker: every request, built once, so that it can be read before it is sent.

Two of them are completed by later tasks with what only the run can know: the training request with the best
hyperparameters (`planning.training.with_best_trial`), the evaluation request with the models
(`planning.evaluation.with_models`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException
from botocore.exceptions import ClientError

from retraining.account.checks import SAGEMAKER, trusts_sagemaker
from retraining.aws.clients import Aws
from retraining.aws.images import patch_warning
from retraining.aws.responses import is_missing, or_none
from retraining.aws.s3 import split_uri, write_json
from retraining.config.hyperparameters import Value
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.config.source import source_folder
from retraining.costs.estimate import check_budget, estimate
from retraining.errors import PlanError
from retraining.planning.account import (
    secure_deployment,
    secure_processing,
    secure_training,
    secure_tuning,
    tags_of,
)
from retraining.planning.common import PlannedRun
from retraining.planning.deployment import VARIANT, alarm_requests, deployment_request
from retraining.planning.evaluation import evaluation_request
from retraining.planning.source import digest_of, upload
from retraining.planning.training import best_hyperparameters, find_weights, training_request
from retraining.planning.tuning import tuning_request, warm_start
from retraining.runs.context import RunLocation
from retraining.runs.results import DatasetResult, Fingerprint, LastRun, ModelSettings, Plan, Search
from retraining.runs.state import changes, fingerprint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sagemaker.type_defs import CreateHyperParameterTuningJobRequestTypeDef

log = logging.getLogger(__name__)

REQUESTS = "plan.json"
"""In the run's folder: every request, as planned."""


def plan_run(
    pipeline: Pipeline,
    settings: RunSettings,
    dataset: DatasetResult,
    aws: Aws,
    location: RunLocation,
    *,
    run_id: str,
    last: LastRun | None,
) -> Plan:
    """Build the run's requests and upload the training code.

    `last` is what the last successful run left. Raises AirflowSkipException where nothing changed since then,
    PlanError where the role, the code, the weights or the search space would make a job fail, or where the
    run may cost more than it should.
    """
    folder = source_folder()
    code = digest_of(folder)
    weights = find_weights(aws.s3, location.bucket, pipeline.model.pretrained_prefix, settings.arch)
    identity = fingerprint(pipeline, settings, dataset, code=code, weights=_identity(aws, weights))
    _skip_unchanged(pipeline, settings, identity, last, aws)
    model: ModelSettings = {
        "arch": settings.arch,
        "trainable": settings.trainable,
        "image_size": settings.image_size,
    }
    search = last["search"] if last else None
    run = PlannedRun(
        pipeline=pipeline,
        settings=settings,
        location=location,
        run_id=run_id,
        region=aws.region,
        role=_role_arn(aws.iam, pipeline.role),
        code=upload(aws.s3, folder, code, location.bucket, f"{location.shared}/code"),
        data=f"{identity['data']}-{identity['weights']}",
        dataset=dataset["uri"],
        left_out=dataset["left_out"],
        weights=weights,
        best=_known_best(settings, search, model),
    )
    log.info("Weights: %s", weights or f"none for {settings.arch}; training starts from random ones")
    log.info("Code: %s", run.code)
    tuning: CreateHyperParameterTuningJobRequestTypeDef | None = None
    if not settings.skip_tuning:
        tuning = tuning_request(run)
        if pipeline.tuning.warm_start and search:
            tuning = warm_start(tuning, search, model, identity, aws.sagemaker)
    costs = estimate(pipeline, settings, run.region, last["costs"] if last else None)
    check_budget(costs, settings.max_cost_usd)
    alarms = alarm_requests(pipeline.deployment.alarms, pipeline.endpoint_name, VARIANT)
    for alarm in alarms:
        alarm["Tags"] = tags_of(pipeline)
    plan: Plan = {
        "run": {
            "name": run.name,
            "run_id": run_id,
            "pipeline": pipeline.name,
            "region": run.region,
            "bucket": location.bucket,
            "output": run.output,
            "code": run.code,
            "weights": weights,
            "dataset": {
                "uri": dataset["uri"],
                "digest": dataset["digest"],
                "manifest": dataset["manifest"],
                "images": dataset["images"],
            },
            "model": model,
            "endpoint": pipeline.endpoint_name,
            "fingerprint": identity,
            "approval": settings.approval,
            "cost": costs,
        },
        "tuning": tuning,
        "training": training_request(run),
        "evaluation": evaluation_request(run),
        "deployment": deployment_request(run, [alarm["AlarmName"] for alarm in alarms]),
        "alarms": alarms,
    }
    _secure(plan, pipeline)
    _warn_of_images(plan)
    uri = write_json(aws.s3, f"{run.output}/{REQUESTS}", plan)
    log.info("The run's requests to SageMaker: %s", uri)
    return plan


def _secure(plan: Plan, pipeline: Pipeline) -> None:
    """Give every request the account's network and keys."""
    if plan["tuning"]:
        secure_tuning(plan["tuning"], pipeline)
    secure_training(plan["training"], pipeline)
    secure_processing(plan["evaluation"], pipeline)
    secure_deployment(plan["deployment"], pipeline)


def _warn_of_images(plan: Plan) -> None:
    """Log which images AWS patches no more, or not for long."""
    images = [
        plan["training"]["AlgorithmSpecification"]["TrainingImage"],
        plan["evaluation"]["AppSpecification"]["ImageUri"],
        plan["deployment"]["Model"]["PrimaryContainer"]["Image"],
    ]
    today = datetime.now(UTC).date()
    for image in dict.fromkeys(images):
        if warning := patch_warning(image, today):
            log.warning(warning)


def _skip_unchanged(
    pipeline: Pipeline, settings: RunSettings, identity: Fingerprint, last: LastRun | None, aws: Aws
) -> None:
    """Raises AirflowSkipException where this run could only repeat the last one."""
    if last is None:
        log.info("There is no record of an earlier run of %s", pipeline.name)
    elif changed := changes(identity, last):
        log.info("Changed since the run %s: %s", last["run"], ", ".join(changed))
    elif last["live"] and not _is_serving(aws, pipeline.endpoint_name):
        log.info("Nothing changed since the run %s, but its endpoint is not in service", last["run"])
    elif settings.force:
        log.info("Nothing changed since the run %s; it runs because the form says so", last["run"])
    else:
        raise AirflowSkipException(
            f"Nothing changed since the run {last['run']} of {last['at']}: data, code, weights and "
            f"configuration are the same. That run's outcome: {last['outcome']} To run all the same, set "
            "force in the form."
        )


def _is_serving(aws: Aws, endpoint: str) -> bool:
    found = or_none(lambda: aws.sagemaker.describe_endpoint(EndpointName=endpoint))
    return found is not None and found["EndpointStatus"] not in {"Failed", "Deleting", "OutOfService"}


def _identity(aws: Aws, uri: str | None) -> str | None:
    """URI and ETag of an object."""
    if uri is None:
        return None
    bucket, key = split_uri(uri)
    return f"{uri} {aws.s3.head_object(Bucket=bucket, Key=key)['ETag']}"


def _known_best(settings: RunSettings, search: Search | None, model: ModelSettings) -> Mapping[str, Value]:
    """The last search's best hyperparameters, for a run of the same model that does not search."""
    if not settings.skip_tuning or search is None:
        return {}
    if search["model"] != model:
        log.info("The best hyperparameters of %s are for another model and not used", search["job"])
        return {}
    log.info("Hyperparameters are the best of %s, with objective %s", search["job"], search["objective"])
    return best_hyperparameters(search["hyperparameters"])


def _role_arn(iam: IAMClient, role: str) -> str:
    if role.startswith("arn:"):
        return role
    try:
        found = iam.get_role(RoleName=role)["Role"]
    except ClientError as error:
        if is_missing(error):
            raise PlanError(
                f"There is no IAM role {role}. docs/iam/account.yaml makes it with what it needs, "
                "or name another role in the pipeline file."
            ) from error
        if error.response["Error"]["Code"] == "AccessDenied":
            raise PlanError(
                f"The connection may not look up the IAM role {role}. Allow iam:GetRole, or put the role's "
                "ARN into the pipeline file."
            ) from error
        raise
    if not trusts_sagemaker(found.get("AssumeRolePolicyDocument")):
        raise PlanError(
            f"SageMaker may not take the IAM role {role}: its trust policy does not name {SAGEMAKER}. "
            "docs/iam/job-role-trust.json has one that does."
        )
    return found["Arn"]
