"""The training job: its request, and the weights that it starts from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from retraining.errors import PlanError
from retraining.planning.common import (
    METRIC_DEFINITIONS,
    PlannedRun,
    as_strings,
    channels,
    hyperparameters,
    resources,
    time_limits,
)
from retraining.planning.debugger import debugger_hyperparameters, with_debugger
from retraining.planning.images import training_image
from retraining.runs.naming import attempt_name
from retraining.runs.results import TuningResult

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef

log = logging.getLogger(__name__)

WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")
_SMALLEST_WEIGHTS = 100_000  # bytes; torchvision's smallest classification weights have 5 million
_TUNING_ONLY = "_tuning_objective_metric"  # SageMaker passes it to trials; training jobs refuse it


def training_request(run: PlannedRun) -> CreateTrainingJobRequestTypeDef:
    """CreateTrainingJob's request, with the hyperparameters of a run that does not tune.

    Raises PlanError for a container or a Debugger rule that does not exist.
    """
    request: CreateTrainingJobRequestTypeDef = {
        "TrainingJobName": attempt_name(run.name, 1),
        "AlgorithmSpecification": {
            "TrainingImage": training_image(run, run.settings.instance_type),
            "TrainingInputMode": "File",
            "MetricDefinitions": METRIC_DEFINITIONS,
            "EnableSageMakerMetricsTimeSeries": True,
        },
        "RoleArn": run.role,
        "HyperParameters": {
            **as_strings(run, hyperparameters(run)),
            **debugger_hyperparameters(run.pipeline),
        },
        "InputDataConfig": channels(run),
        "OutputDataConfig": {"S3OutputPath": f"{run.output}/training"},
        "ResourceConfig": resources(run),
        "StoppingCondition": time_limits(run),
        "EnableManagedSpotTraining": run.settings.spot,
        "CheckpointConfig": {"S3Uri": f"{run.output}/checkpoints", "LocalPath": "/opt/ml/checkpoints"},
        "Tags": run.tags,
    }
    return with_debugger(request, run.pipeline, run.region)


def with_best_trial(
    planned: CreateTrainingJobRequestTypeDef, tuning: TuningResult | None
) -> CreateTrainingJobRequestTypeDef:
    """The planned request with the best trial's hyperparameters, if there was a search.

    Checkpoints go to a folder named by the hyperparameters: an attempt with the same ones continues from
    there, one with others starts over.
    """
    best = best_hyperparameters(tuning["best"]["hyperparameters"]) if tuning else {}
    chosen = {**planned["HyperParameters"], **best}
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    checkpoints = planned["CheckpointConfig"]
    shown = {name: value for name, value in chosen.items() if not name.startswith("sagemaker_")}
    log.info("Hyperparameters of the training: %s", json.dumps(shown))
    return {
        **planned,
        "HyperParameters": chosen,
        "CheckpointConfig": {**checkpoints, "S3Uri": f"{checkpoints['S3Uri']}/{digest}"},
    }


def best_hyperparameters(trial: Mapping[str, str]) -> dict[str, str]:
    """A trial's hyperparameters as another training job takes them."""
    return {name: str(value) for name, value in trial.items() if name != _TUNING_ONLY}


def find_weights(s3: S3Client, bucket: str, prefix: str, arch: str) -> str | None:
    """The URI of the one weights file under `<prefix>/<arch>/`, or None where there is none.

    Raises PlanError where there are several files, or one that cannot be weights; whether they fit the
    architecture, the training script says.
    """
    folder = f"{prefix.strip('/')}/{arch}/"
    contents = s3.list_objects_v2(Bucket=bucket, Prefix=folder, MaxKeys=10).get("Contents", [])
    files = [entry for entry in contents if not entry["Key"].endswith("/")]
    if not files:
        return None
    key, size = files[0]["Key"], files[0]["Size"]
    uri = f"s3://{bucket}/{key}"
    if len(files) > 1:
        names = ", ".join(PurePosixPath(entry["Key"]).name for entry in files)
        raise PlanError(
            f"s3://{bucket}/{folder} holds {len(files)} files ({names}); keep the one to start from."
        )
    if not key.endswith(WEIGHTS_SUFFIXES):
        raise PlanError(
            f"{uri} is not a weights file; one that ends in {' or '.join(WEIGHTS_SUFFIXES)} is expected."
        )
    if size < _SMALLEST_WEIGHTS:
        raise PlanError(
            f"{uri} has {size:,} bytes, too few for the weights of a network; upload the file again."
        )
    return uri
