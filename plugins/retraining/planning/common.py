"""What the requests of one run share: names, role, code, channels, images and hyperparameters.

Import inside a task only: the SageMaker SDK takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sagemaker.core import image_uris

from retraining.config.hyperparameters import Value
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.errors import PlanError
from retraining.runs.context import RunLocation

Request = dict[str, Any]

TOOLKIT_PREFIX = "sagemaker_"
DATA_DIGEST = f"{TOOLKIT_PREFIX}data_digest"

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


@dataclass(frozen=True)
class Run:
    """What every request of a run shares."""

    pipeline: Pipeline
    settings: RunSettings
    location: RunLocation
    region: str
    role: str
    code: str
    """URI of the code's archive."""
    data: str
    """Digest of the data set and the weights, whose URIs stay the same when their content changes."""
    channels: list[Request]
    best: Mapping[str, Value]
    """The last search's best hyperparameters, as far as they fit this run."""

    @property
    def name(self) -> str:
        return self.location.run

    @property
    def output(self) -> str:
        return self.location.output

    @property
    def tags(self) -> list[Request]:
        return [{"Key": "pipeline", "Value": self.pipeline.name}, {"Key": "run", "Value": self.name}]


def hyperparameters(run: Run) -> dict[str, Value]:
    """The hyperparameters of a run that does not tune."""
    settings = run.settings
    values = {
        **run.pipeline.hyperparameters,
        **run.best,
        "arch": settings.arch,
        "trainable": settings.trainable,
        "image-size": settings.image_size or "auto",
    }
    if "epochs" in run.pipeline.tuning.search_space or settings.epochs_min == settings.epochs_max:
        values["epochs"] = min(max(int(values["epochs"]), settings.epochs_min), settings.epochs_max)
    return values


def as_strings(run: Run, values: Mapping[str, Value]) -> dict[str, str]:
    """SageMaker's hyperparameters are strings; the toolkit's own say which script to run, and from where.

    The toolkit keeps every name with its prefix from the script. So does it the digest of the data, which is
    here to tell jobs on other data apart, whose requests are equal otherwise.
    """
    return {
        **{name: str(value) for name, value in values.items()},
        "sagemaker_program": "train.py",
        "sagemaker_submit_directory": run.code,
        DATA_DIGEST: run.data,
        "sagemaker_container_log_level": "20",
        "sagemaker_region": run.region,
    }


def image(run: Run, scope: str, version: str, py_version: str, instance_type: str) -> str:
    """URI of AWS's PyTorch container. Raises PlanError where AWS has none."""
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


def training_image(run: Run, instance_type: str) -> str:
    """The container that training and evaluation run in."""
    job = run.pipeline.job
    return image(run, "training", job.framework_version, job.py_version, instance_type)


def machine(run: Run) -> Request:
    """The members of a training job's request, or of a trial's, that say where and how long it runs."""
    job, spot = run.pipeline.job, run.settings.spot
    limit = {"MaxRuntimeInSeconds": job.max_runtime_seconds}
    if spot:
        limit["MaxWaitTimeInSeconds"] = job.max_runtime_seconds + job.max_spot_wait_seconds
    return {
        "ResourceConfig": {
            "InstanceType": run.settings.instance_type,
            "InstanceCount": 1,  # the script trains on one machine
            "VolumeSizeInGB": job.volume_size_gb,
        },
        "StoppingCondition": limit,
        "EnableManagedSpotTraining": spot,
    }


def algorithm(run: Run) -> Request:
    return {
        "TrainingImage": training_image(run, run.settings.instance_type),
        "TrainingInputMode": "File",
        "MetricDefinitions": METRIC_DEFINITIONS,
    }
