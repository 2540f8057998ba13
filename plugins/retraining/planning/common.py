"""What the requests of one run share: names, role, code, channels and hyperparameters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from retraining.config.hyperparameters import Value
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.planning.account import tags_of
from retraining.runs.context import RunLocation
from retraining.runs.naming import RUN_ID_TAG

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import TrainingInstanceTypeType
    from mypy_boto3_sagemaker.type_defs import (
        ChannelTypeDef,
        MetricDefinitionTypeDef,
        ResourceConfigTypeDef,
        StoppingConditionTypeDef,
        TagTypeDef,
    )

TOOLKIT_PREFIX = "sagemaker_"
DATA_DIGEST = f"{TOOLKIT_PREFIX}data_digest"

# One line an epoch, one at the end: `epoch=3 train_loss=0.51 ...`, `final ... test_accuracy=0.78 ...`.
log = logging.getLogger(__name__)

METRIC_DEFINITIONS: list[MetricDefinitionTypeDef] = [
    {"Name": "train:loss", "Regex": r"\btrain_loss=(\S+)"},
    {"Name": "train:accuracy", "Regex": r"\btrain_accuracy=(\S+)"},
    {"Name": "valid:loss", "Regex": r"\bvalid_loss=(\S+)"},
    {"Name": "valid:accuracy", "Regex": r"\bvalid_accuracy=(\S+)"},
    {"Name": "test:loss", "Regex": r"\btest_loss=(\S+)"},
    {"Name": "test:accuracy", "Regex": r"\btest_accuracy=(\S+)"},
    {"Name": "epoch", "Regex": r"\bepoch=(\d+)"},
    {"Name": "images:per_second", "Regex": r"\bimages_per_second=(\S+)"},
]


@dataclass(frozen=True)
class PlannedRun:
    """What every request of a run shares."""

    pipeline: Pipeline
    settings: RunSettings
    location: RunLocation
    run_id: str
    """The DAG run's."""
    region: str
    role: str
    code: str
    """URI of the code's archive."""
    data: str
    """Digest of the dataset and the weights: their content may change under the same URIs."""
    dataset: str
    """URI of the dataset."""
    left_out: str | None
    """URI of the list of images that training and evaluation do without."""
    weights: str | None
    """URI of the pretrained weights."""
    best: Mapping[str, Value]
    """The last search's best hyperparameters, as far as they fit this run."""

    @property
    def name(self) -> str:
        return self.location.run

    @property
    def output(self) -> str:
        return self.location.output

    @property
    def tags(self) -> list[TagTypeDef]:
        return tags_of(self.pipeline, **{"run": self.name, RUN_ID_TAG: self.run_id})


def hyperparameters(run: PlannedRun) -> dict[str, Value]:
    """The hyperparameters of a run that does not tune."""
    settings = run.settings
    values = {
        **run.pipeline.hyperparameters,
        **run.best,
        "arch": settings.arch,
        "trainable": settings.trainable,
        "image-size": settings.image_size or "auto",
    }
    chosen = {"lr": settings.lr, "momentum": settings.momentum, "batch-size": settings.batch_size}
    values |= {name: value for name, value in chosen.items() if value is not None}
    if "epochs" in run.pipeline.tuning.search_space or settings.epochs_min == settings.epochs_max:
        epochs = min(max(int(values["epochs"]), settings.epochs_min), settings.epochs_max)
        if settings.skip_tuning and epochs != int(values["epochs"]):
            log.info(
                "A run without tuning trains for %d epochs, not %s: the form allows %d to %d",
                epochs,
                values["epochs"],
                settings.epochs_min,
                settings.epochs_max,
            )
        values["epochs"] = epochs
    return values


def as_strings(run: PlannedRun, values: Mapping[str, Value]) -> dict[str, str]:
    """Hyperparameters as SageMaker takes them, with the toolkit's own: the script and where it comes from.

    The data digest distinguishes otherwise identical requests. The toolkit hides every name with its prefix
    from the script.
    """
    return {
        **{name: str(value) for name, value in values.items()},
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": run.code,
        DATA_DIGEST: run.data,
        "sagemaker_container_log_level": "20",
        "sagemaker_region": run.region,
    }


def resources(run: PlannedRun) -> ResourceConfigTypeDef:
    """The machine of a training job; the script trains on one."""
    return {
        "InstanceType": cast("TrainingInstanceTypeType", run.settings.instance_type),
        "InstanceCount": 1,
        "VolumeSizeInGB": run.pipeline.job.volume_size_gb,
    }


def time_limits(run: PlannedRun) -> StoppingConditionTypeDef:
    """How long a training job may take and, on spot capacity, wait."""
    job = run.pipeline.job
    limits: StoppingConditionTypeDef = {"MaxRuntimeInSeconds": job.max_runtime_seconds}
    if run.settings.spot:
        limits["MaxWaitTimeInSeconds"] = job.max_runtime_seconds + job.max_spot_wait_seconds
    return limits


def channels(run: PlannedRun) -> list[ChannelTypeDef]:
    """The splits, and the pretrained weights and the list of images to leave out, if there are any."""
    uris = {split: f"{run.dataset}/{split}/" for split in ("train", "valid", "test")}
    if run.weights:
        uris["pretrained"] = run.weights
    if run.left_out:
        uris["left_out"] = run.left_out
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
        for name, uri in uris.items()
    ]
