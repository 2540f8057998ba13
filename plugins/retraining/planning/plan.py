"""What a run will ask of SageMaker: every request, built once, so that it can be read before it is sent.

The requests are plain JSON. Some of them are completed later by what only the run can know: the training
request by the best hyperparameters (`training_request`), evaluation and deployment by the model that came out
(`retraining.evaluation.champion.evaluation_request`, `deployment_request`).
Import inside a task only: the SageMaker SDK takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException
from botocore.exceptions import ClientError

from retraining.aws.clients import Aws, split_uri
from retraining.aws.responses import or_none
from retraining.config.hyperparameters import Value
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.costs.estimate import check_budget, estimate
from retraining.errors import PlanError
from retraining.planning.common import (
    Request,
    Run,
    algorithm,
    as_strings,
    hyperparameters,
    image,
    machine,
    training_image,
)
from retraining.planning.debugger import debugger_hyperparameters, debugger_request
from retraining.planning.deployment import VARIANT, deployment_parts, guarded
from retraining.planning.evaluation import planned_evaluation
from retraining.planning.source import digest_of, source_folder, upload
from retraining.planning.tuning import tuning_request, warm_start
from retraining.planning.weights import find_weights
from retraining.runs.context import RunLocation
from retraining.runs.naming import NAME_LIMIT, attempt_name
from retraining.runs.state import changes, fingerprint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

log = logging.getLogger(__name__)

_TUNING_ONLY = "_tuning_objective_metric"  # SageMaker hands it to trials; training does not take it


def plan_run(
    pipeline: Pipeline,
    settings: RunSettings,
    dataset: Mapping[str, Any],
    aws: Aws,
    location: RunLocation,
    *,
    run_id: str,
    last: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Build the run's requests and upload the training code.

    `last` is what the last successful run left (`retraining.runs.state`).
    Returns `{run: {...}, tuning: request or None, training: request, evaluation: request, deployment: {Model,
    EndpointConfig, Endpoint, Alarms}}`.
    Raises AirflowSkipException where nothing changed since the last run, PlanError where the role, the code,
    the weights or the search space would make a job fail, or where the run may cost more than it should.
    """
    folder = source_folder()
    code = digest_of(folder)
    weights = find_weights(aws.s3, location.bucket, pipeline.model.pretrained_prefix, settings.arch)
    identity = fingerprint(pipeline, settings, dataset, code=code, weights=_identity(aws, weights))
    _skip_unchanged(pipeline, settings, identity, last, aws)
    model = {"arch": settings.arch, "trainable": settings.trainable, "image_size": settings.image_size}
    search = (last or {}).get("search")
    run = Run(
        pipeline=pipeline,
        settings=settings,
        location=location,
        region=aws.region,
        role=_role_arn(aws.iam, pipeline.role),
        code=upload(aws.s3, folder, code, location.bucket, f"{location.shared}/code"),
        data=f"{identity['data']}-{identity['weights']}",
        channels=_channels(str(dataset["uri"]), weights),
        best=_known_best(settings, search, model),
    )
    log.info("Weights: %s", weights or f"none for {settings.arch}; training starts from random ones")
    log.info("Code: %s", run.code)
    tuning = None
    if not settings.skip_tuning:
        current = {"model": model, **identity}
        tuning = warm_start(tuning_request(run), run, search, current, aws.sagemaker)
    costs = estimate(pipeline, settings, run.region, (last or {}).get("costs"))
    check_budget(costs, settings.max_cost_usd)
    requests: dict[str, Any] = {
        "run": {
            "name": run.name,
            "run_id": run_id,
            "pipeline": pipeline.name,
            "region": run.region,
            "bucket": location.bucket,
            "output": run.output,
            "code": run.code,
            "weights": weights,
            "dataset": {key: dataset[key] for key in ("uri", "digest", "manifest", "images")},
            "model": model,
            "endpoint": pipeline.endpoint_name,
            "fingerprint": identity,
            "approval": settings.approval,
            "cost": costs,
        },
        "tuning": tuning,
        "training": _training(run),
        "evaluation": _evaluation(run, str(dataset["uri"])),
        "deployment": guarded(_deployment(run), deployment_parts(pipeline, settings, location)),
    }
    log.info("The run's requests:\n%s", json.dumps(requests, indent=2))
    return requests


def training_request(training: Request, tuning: Mapping[str, Any] | None) -> Request:
    """The training request with the best trial's hyperparameters; as planned where there is no tuning result.

    Checkpoints go to a folder of these hyperparameters, so that another attempt with the same ones goes on
    from there and one with others starts afresh.
    """
    best = tuning["best"]["hyperparameters"] if tuning else {}
    chosen = {name: str(value) for name, value in best.items() if name != _TUNING_ONLY}
    hyperparameters = {**training["HyperParameters"], **chosen}
    digest = hashlib.sha256(json.dumps(hyperparameters, sort_keys=True).encode()).hexdigest()[:8]
    checkpoints = training["CheckpointConfig"]
    log.info("Hyperparameters of the training: %s", json.dumps(hyperparameters, indent=2))
    return {
        **training,
        "HyperParameters": hyperparameters,
        "CheckpointConfig": {**checkpoints, "S3Uri": f"{checkpoints['S3Uri']}/{digest}"},
    }


def deployment_request(
    deployment: Request,
    training: Mapping[str, Any],
    package: Mapping[str, Any],
    replaces: str | None,
) -> Request:
    """The deployment of the model that the training job left in S3, registered as `package`.

    It replaces the endpoint configuration that was in service when models were compared, and no other.
    """
    container = {**deployment["Model"]["PrimaryContainer"], "ModelDataUrl": training["model_artifact"]}
    model = {**deployment["Model"], "PrimaryContainer": container}
    return {**deployment, "Model": model, "Package": package["arn"], "Replaces": replaces}


def _skip_unchanged(
    pipeline: Pipeline,
    settings: RunSettings,
    identity: Mapping[str, str],
    last: Mapping[str, Any] | None,
    aws: Aws,
) -> None:
    """Raises AirflowSkipException where this run could only repeat the last one."""
    changed = changes(identity, last)
    if last is None:
        log.info("This is the pipeline's first run, as far as %s knows", pipeline.name)
    elif changed:
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


def _known_best(
    settings: RunSettings, search: Mapping[str, Any] | None, model: Mapping[str, Any]
) -> Mapping[str, Value]:
    """The last search's best hyperparameters, for a run of the same model that does not search."""
    if not settings.skip_tuning or search is None:
        return {}
    if search["model"] != model:
        log.info("The best hyperparameters of %s are another model's and not used", search["job"])
        return {}
    log.info("Hyperparameters are the best of %s, whose objective was %s", search["job"], search["objective"])
    return {name: value for name, value in search["hyperparameters"].items() if name != _TUNING_ONLY}


def _role_arn(iam: IAMClient, role: str) -> str:
    if role.startswith("arn:"):
        return role
    try:
        return iam.get_role(RoleName=role)["Role"]["Arn"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            raise PlanError(
                f"There is no IAM role {role}. Create it with the policy AmazonSageMakerFullAccess and "
                "access to the bucket, or name another role in the pipeline file."
            ) from error
        if error.response["Error"]["Code"] == "AccessDenied":
            raise PlanError(
                f"The connection may not look up the IAM role {role}. Allow iam:GetRole, or put the role's "
                "ARN into the pipeline file."
            ) from error
        raise


def _channels(dataset: str, weights: str | None) -> list[Request]:
    places = {split: f"{dataset}/{split}/" for split in ("train", "valid", "test")}
    if weights:
        places["pretrained"] = weights
    return [
        {
            "ChannelName": name,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": uri,
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
            "InputMode": "File",
        }
        for name, uri in places.items()
    ]


def _training(run: Run) -> Request:
    output = f"{run.output}/training"
    return {
        "TrainingJobName": attempt_name(run.name, 1),
        "AlgorithmSpecification": {**algorithm(run), "EnableSageMakerMetricsTimeSeries": True},
        "RoleArn": run.role,
        "HyperParameters": {
            **as_strings(run, hyperparameters(run)),
            **debugger_hyperparameters(run.pipeline),
        },
        "InputDataConfig": run.channels,
        "OutputDataConfig": {"S3OutputPath": output},
        **machine(run),
        "CheckpointConfig": {"S3Uri": f"{run.output}/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        "Tags": run.tags,
        **debugger_request(run.pipeline, run.name, run.region, output),
    }


def _evaluation(run: Run, dataset: str) -> Request:
    return planned_evaluation(
        run.pipeline,
        name=run.name,
        role=run.role,
        image=training_image(run, run.pipeline.evaluation.instance_type),
        output=run.output,
        code_uri=run.code,
        test_uri=f"{dataset}/test",
        data=run.data,
        tags=run.tags,
    )


def _deployment(run: Run) -> Request:
    """The request of SageMakerEndpointOperator: model, endpoint configuration, endpoint."""
    endpoint, settings = run.pipeline.endpoint, run.settings
    name = attempt_name(run.name, 1, NAME_LIMIT)
    instance = settings.endpoint_instance_type
    return {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": {
                "Image": image(run, "inference", endpoint.framework_version, endpoint.py_version, instance),
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
        "EndpointConfig": {
            "EndpointConfigName": name,
            "ProductionVariants": [
                {
                    "VariantName": VARIANT,
                    "ModelName": name,
                    "InitialInstanceCount": settings.endpoint_instance_count,
                    "InstanceType": instance,
                    "InitialVariantWeight": 1.0,
                }
            ],
            "Tags": run.tags,
        },
        "Endpoint": {
            "EndpointName": run.pipeline.endpoint_name,
            "EndpointConfigName": name,
            "Tags": [{"Key": "pipeline", "Value": run.pipeline.name}],
        },
    }
