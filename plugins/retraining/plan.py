"""What a run will ask of SageMaker: every request, built once, so that it can be read before it is sent.

The requests are plain JSON. Two of them are completed later by what only the run can know: the training
request by the best hyperparameters (`training_request`), the deployment by the model that came out
(`deployment_request`).
Import inside a task only: the SageMaker SDK takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from sagemaker.core import image_uris

from retraining.aws import Aws, bucket_of
from retraining.debugger import debugger_hyperparameters, debugger_request
from retraining.errors import PlanError
from retraining.form import RunSettings
from retraining.hyperparameters import Value
from retraining.names import NAME_LIMIT, attempt_name, run_name
from retraining.pipeline import Pipeline
from retraining.sections import Categorical, Continuous, Integer
from retraining.source import Source, source_folder, upload
from retraining.weights import find_weights

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

log = logging.getLogger(__name__)

Request = dict[str, Any]

# One line an epoch, one at the end: `epoch=3 train_loss=0.51 ...`, `final ... test_accuracy=0.78 ...`.
METRIC_DEFINITIONS = [
    {"Name": "train:loss", "Regex": r"\btrain_loss=(\S+)"},
    {"Name": "train:accuracy", "Regex": r"\btrain_accuracy=(\S+)"},
    {"Name": "valid:loss", "Regex": r"\bvalid_loss=(\S+)"},
    {"Name": "valid:accuracy", "Regex": r"\bvalid_accuracy=(\S+)"},
    {"Name": "test:loss", "Regex": r"\btest_loss=(\S+)"},
    {"Name": "test:accuracy", "Regex": r"\btest_accuracy=(\S+)"},
    {"Name": "epoch", "Regex": r"\bepoch=(\d+)"},
    {"Name": "images:per_second", "Regex": r"\bimages_per_second=(\S+)"},
]
_TUNING_ONLY = "_tuning_objective_metric"  # SageMaker hands it to trials; training does not take it


@dataclass(frozen=True)
class _Run:
    """What every request of a run shares."""

    pipeline: Pipeline
    settings: RunSettings
    name: str
    region: str
    role: str
    output: str
    source: Source
    channels: list[Request]
    tags: list[Request]


def plan_run(
    pipeline: Pipeline,
    settings: RunSettings,
    dataset: Mapping[str, Any],
    aws: Aws,
    *,
    run_id: str,
    when: datetime,
) -> dict[str, Any]:
    """Build the run's requests and upload the training code.

    Returns `{run: {...}, tuning: request or None, training: request, deployment: {Model, EndpointConfig,
    Endpoint}}`.
    Raises PlanError where the role, the code, the weights or the search space would make a job fail.
    """
    bucket = bucket_of(aws, settings.bucket)
    name = run_name(pipeline.slug, run_id, when)
    base = f"retraining/{pipeline.name}"
    weights = find_weights(aws.s3, bucket, pipeline.model.pretrained_prefix, settings.arch)
    run = _Run(
        pipeline=pipeline,
        settings=settings,
        name=name,
        region=aws.region,
        role=_role_arn(aws.iam, pipeline.role),
        output=f"s3://{bucket}/{base}/{name}",
        source=upload(aws.s3, source_folder(), bucket, f"{base}/code"),
        channels=_channels(str(dataset["uri"]), weights),
        tags=[{"Key": "pipeline", "Value": pipeline.name}, {"Key": "run", "Value": name}],
    )
    log.info("Weights: %s", weights or f"none for {settings.arch}; training starts from random ones")
    log.info("Code: %s", run.source.uri)
    requests: dict[str, Any] = {
        "run": {
            "name": name,
            "run_id": run_id,
            "pipeline": pipeline.name,
            "region": run.region,
            "bucket": bucket,
            "output": run.output,
            "code": run.source.uri,
            "weights": weights,
            "endpoint": pipeline.endpoint_name,
        },
        "tuning": None if settings.skip_tuning else _tuning(run),
        "training": _training(run),
        "deployment": _deployment(run),
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


def deployment_request(deployment: Request, training: Mapping[str, Any]) -> Request:
    """The deployment with the model in it that the training job left in S3."""
    container = {**deployment["Model"]["PrimaryContainer"], "ModelDataUrl": training["model_artifact"]}
    return {**deployment, "Model": {**deployment["Model"], "PrimaryContainer": container}}


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


def _hyperparameters(run: _Run) -> dict[str, Value]:
    """The hyperparameters of a run that does not tune."""
    settings = run.settings
    values = {
        **run.pipeline.hyperparameters,
        "arch": settings.arch,
        "trainable": settings.trainable,
        "image-size": settings.image_size or "auto",
    }
    if "epochs" in run.pipeline.tuning.search_space or settings.epochs_min == settings.epochs_max:
        values["epochs"] = min(max(int(values["epochs"]), settings.epochs_min), settings.epochs_max)
    return values


def _as_strings(run: _Run, values: Mapping[str, Value]) -> dict[str, str]:
    """SageMaker's hyperparameters are strings; the toolkit's own say which script to run, and from where."""
    return {
        **{name: str(value) for name, value in values.items()},
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": run.source.uri,
        "sagemaker_container_log_level": "20",
        "sagemaker_region": run.region,
    }


def _image(run: _Run, scope: str, version: str, py_version: str, instance_type: str) -> str:
    try:
        uri: str = image_uris.retrieve(
            "pytorch",
            run.region,
            version=version,
            py_version=py_version,
            instance_type=instance_type,
            image_scope=scope,
        )
    except (ValueError, KeyError) as error:
        raise PlanError(
            f"AWS has no PyTorch {scope} container {version} {py_version} for {instance_type} in "
            f"{run.region}: {error} Correct framework_version, py_version or the instance type."
        ) from error
    return uri


def _resources(run: _Run) -> Request:
    return {
        "InstanceType": run.settings.instance_type,
        "InstanceCount": run.pipeline.job.instance_count,
        "VolumeSizeInGB": run.pipeline.job.volume_size_gb,
    }


def _algorithm(run: _Run) -> Request:
    job = run.pipeline.job
    image = _image(run, "training", job.framework_version, job.py_version, run.settings.instance_type)
    return {"TrainingImage": image, "TrainingInputMode": "File", "MetricDefinitions": METRIC_DEFINITIONS}


def _training(run: _Run) -> Request:
    output = f"{run.output}/training"
    return {
        "TrainingJobName": attempt_name(run.name, 1),
        "AlgorithmSpecification": {**_algorithm(run), "EnableSageMakerMetricsTimeSeries": True},
        "RoleArn": run.role,
        "HyperParameters": {
            **_as_strings(run, _hyperparameters(run)),
            **debugger_hyperparameters(run.pipeline),
        },
        "InputDataConfig": run.channels,
        "OutputDataConfig": {"S3OutputPath": output},
        "ResourceConfig": _resources(run),
        "StoppingCondition": {"MaxRuntimeInSeconds": run.pipeline.job.max_runtime_seconds},
        "CheckpointConfig": {"S3Uri": f"{run.output}/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        "Tags": run.tags,
        **debugger_request(run.pipeline, run.name, run.region, output),
    }


def _tuning(run: _Run) -> Request:
    tuning = run.pipeline.tuning
    ranges = _search_space(run)
    searched = {r["Name"] for group in ranges.values() for r in group}
    static = {name: value for name, value in _hyperparameters(run).items() if name not in searched}
    config: Request = {
        "Strategy": tuning.strategy,
        "HyperParameterTuningJobObjective": {
            "Type": tuning.objective.type,
            "MetricName": tuning.objective.metric,
        },
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": run.settings.max_jobs,
            "MaxParallelTrainingJobs": run.settings.max_parallel_jobs,
            "MaxRuntimeInSeconds": tuning.max_runtime_seconds,
        },
        "ParameterRanges": ranges,
        "TrainingJobEarlyStoppingType": "Auto" if tuning.early_stopping else "Off",
    }
    if tuning.random_seed is not None:
        config["RandomSeed"] = tuning.random_seed
    return {
        "HyperParameterTuningJobName": run.name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {
            "StaticHyperParameters": _as_strings(run, static),
            "AlgorithmSpecification": _algorithm(run),
            "RoleArn": run.role,
            "InputDataConfig": run.channels,
            "OutputDataConfig": {"S3OutputPath": f"{run.output}/tuning"},
            "ResourceConfig": _resources(run),
            "StoppingCondition": {"MaxRuntimeInSeconds": run.pipeline.job.max_runtime_seconds},
        },
        "Tags": run.tags,
    }


def _search_space(run: _Run) -> dict[str, list[Request]]:
    """SageMaker's ParameterRanges; the form's ends of the epochs replace the file's."""
    known = {metric["Name"] for metric in METRIC_DEFINITIONS}
    if run.pipeline.tuning.objective.metric not in known:
        raise PlanError(
            f"Pipeline {run.pipeline.name}: the objective {run.pipeline.tuning.objective.metric!r} is no "
            f"metric of the training script; choose one of {', '.join(sorted(known))}."
        )
    ranges: dict[str, list[Request]] = {}
    for name, wanted in run.pipeline.tuning.search_space.items():
        limited = _limit_epochs(wanted, run.settings) if name == "epochs" else wanted
        match limited:
            case Continuous():
                ranges.setdefault("ContinuousParameterRanges", []).append(_interval(name, limited))
            case Integer():
                ranges.setdefault("IntegerParameterRanges", []).append(_interval(name, limited))
            case Categorical():
                values = [str(value) for value in limited.values]
                ranges.setdefault("CategoricalParameterRanges", []).append({"Name": name, "Values": values})
    if not ranges:
        raise PlanError(
            "Nothing is left to search for: widen the range of epochs, or start the run with skip_tuning."
        )
    return ranges


def _interval(name: str, ends: Continuous | Integer) -> Request:
    return {"Name": name, "MinValue": str(ends.min), "MaxValue": str(ends.max), "ScalingType": ends.scaling}


def _limit_epochs(
    wanted: Continuous | Integer | Categorical, settings: RunSettings
) -> Continuous | Integer | Categorical | None:
    """The range of epochs between the form's ends, or None where they leave one value."""
    low, high = settings.epochs_min, settings.epochs_max
    if isinstance(wanted, Categorical):
        kept = [value for value in wanted.values if low <= int(value) <= high]
        if not kept:
            raise PlanError(
                f"The search space has no number of epochs from {low} to {high}; change the form's ends."
            )
        return Categorical(type="categorical", values=kept)
    return None if low == high else Integer(type="integer", min=low, max=high, scaling=wanted.scaling)


def _deployment(run: _Run) -> Request:
    """The request of SageMakerEndpointOperator: model, endpoint configuration, endpoint."""
    endpoint, settings = run.pipeline.endpoint, run.settings
    name = attempt_name(run.name, 1, NAME_LIMIT)
    instance = settings.endpoint_instance_type
    return {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": {
                "Image": _image(run, "inference", endpoint.framework_version, endpoint.py_version, instance),
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
                    "VariantName": "AllTraffic",
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
