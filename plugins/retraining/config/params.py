"""The form that a run is started with: its fields, made from the pipeline file, and the check of its values.

Airflow checks every field alone, by its JSON schema; `RunSettings.from_params` checks the fields against each
other, as the first thing a run does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, get_args

from airflow.sdk import Param

from retraining.config.hyperparameters import TRAINABLE, problem
from retraining.config.pipeline import Pipeline
from retraining.config.sections import (
    INSTANCE_TYPE_PATTERN,
    Categorical,
    Continuous,
    DeploymentStrategy,
    Integer,
)
from retraining.errors import ParametersError

_BUCKET_PATTERN = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"


def form(pipeline: Pipeline) -> dict[str, Param]:
    """The fields of the trigger form, with the pipeline file's values as defaults."""
    tuning, epochs = pipeline.tuning, _epochs(pipeline)
    return {
        "force": Param(
            False,
            type="boolean",
            title="Run anyway",
            description="Run even if data, code and settings are those of the last run.",
            section="Run",
        ),
        "max_cost_usd": Param(
            pipeline.max_cost_usd,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="Most cost (USD)",
            description="A run that may cost more by its limits does not start; empty for no limit.",
            section="Run",
        ),
        "spot": Param(
            pipeline.job.spot,
            type="boolean",
            title="Spot capacity",
            description="Train on spare capacity, which is cheaper. An interrupted training goes on from its "
            "checkpoint, an interrupted trial begins again.",
            section="Run",
        ),
        "skip_tuning": Param(
            False,
            type="boolean",
            title="Skip tuning",
            description="Train once, with the last run's best hyperparameters, or else the pipeline file's.",
            section="Tuning",
        ),
        "max_jobs": Param(
            tuning.max_jobs,
            type="integer",
            minimum=1,
            maximum=750,
            title="Trials",
            description="Training jobs that the search may start.",
            section="Tuning",
        ),
        "max_parallel_jobs": Param(
            tuning.max_parallel_jobs,
            type="integer",
            minimum=1,
            maximum=100,
            title="Parallel trials",
            description="Trials at a time. Fewer are slower and let a Bayesian search learn more from each.",
            section="Tuning",
        ),
        "epochs_min": Param(
            epochs[0],
            type="integer",
            minimum=1,
            maximum=1000,
            title="Fewest epochs",
            description="Lower end of the range of epochs that tuning searches.",
            section="Tuning",
        ),
        "epochs_max": Param(
            epochs[1],
            type="integer",
            minimum=1,
            maximum=1000,
            title="Most epochs",
            description="Upper end of that range. With equal ends, epochs are not searched.",
            section="Tuning",
        ),
        "arch": Param(
            pipeline.model.arch,
            type="string",
            pattern=r"^[a-z][a-z0-9_]*$",
            examples=["resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_0"],
            title="Architecture",
            description="A torchvision classification model, by its name in torchvision.",
            section="Model",
        ),
        "trainable": Param(
            pipeline.model.trainable,
            type="string",
            enum=list(TRAINABLE),
            title="Trainable part",
            description="The head, the last block with it, or all; auto: the head on weights, else all.",
            section="Model",
        ),
        "image_size": Param(
            pipeline.model.image_size,
            type=["null", "integer"],
            minimum=16,
            maximum=1024,
            title="Image size",
            description="Side of the square that the network sees, in pixels; empty: by the pictures' size.",
            section="Model",
        ),
        "instance_type": Param(
            pipeline.job.instance_type,
            type="string",
            pattern=INSTANCE_TYPE_PATTERN,
            examples=["ml.m5.xlarge", "ml.c5.2xlarge", "ml.g4dn.xlarge", "ml.g5.xlarge"],
            title="Training instance",
            description="Machine of every training job. A type with a GPU gets the GPU container.",
            section="Machines",
        ),
        "endpoint_instance_type": Param(
            pipeline.endpoint.instance_type,
            type="string",
            pattern=INSTANCE_TYPE_PATTERN,
            examples=["ml.t2.medium", "ml.m5.large", "ml.c5.xlarge", "ml.g4dn.xlarge"],
            title="Endpoint instance",
            description="Machine that serves the model.",
            section="Machines",
        ),
        "endpoint_instance_count": Param(
            pipeline.endpoint.instance_count,
            type="integer",
            minimum=1,
            maximum=100,
            title="Endpoint instances",
            description="How many of them.",
            section="Machines",
        ),
        "approval": Param(
            pipeline.approval.required,
            type="boolean",
            title="Ask before deploying",
            description="Wait for a person to approve the model that passed the gate.",
            section="Deployment",
        ),
        "deployment_strategy": Param(
            pipeline.deployment.strategy,
            type="string",
            enum=list(get_args(DeploymentStrategy)),
            title="Traffic shifting",
            description="How traffic moves to the new model. The alarms roll back in every case.",
            section="Deployment",
        ),
        "bake_seconds": Param(
            pipeline.deployment.bake_seconds,
            type="integer",
            minimum=0,
            maximum=3600,
            title="Bake time (s)",
            description="How long the alarms watch each step of the traffic.",
            section="Deployment",
        ),
        "data_capture": Param(
            pipeline.endpoint.data_capture.enabled,
            type="boolean",
            title="Data capture",
            description="Keep requests and answers of the endpoint in S3.",
            section="Deployment",
        ),
        "bucket": Param(
            pipeline.bucket,
            type=["null", "string"],
            pattern=_BUCKET_PATTERN,
            title="Bucket",
            description="Holds data, weights and results; empty stands for sagemaker-<region>-<account>.",
            section="Data",
        ),
        "dataset_prefix": Param(
            pipeline.dataset_prefix,
            type="string",
            minLength=1,
            title="Data set",
            description="Key prefix in the bucket, or an s3:// URI, of the folders train/, valid/ and test/.",
            section="Data",
        ),
    }


@dataclass(frozen=True)
class RunSettings:
    """The form's values of one run, checked."""

    force: bool
    max_cost_usd: float | None
    spot: bool
    skip_tuning: bool
    max_jobs: int
    max_parallel_jobs: int
    epochs_min: int
    epochs_max: int
    arch: str
    trainable: str
    image_size: int | None
    instance_type: str
    endpoint_instance_type: str
    endpoint_instance_count: int
    approval: bool
    deployment_strategy: DeploymentStrategy
    bake_seconds: int
    data_capture: bool
    bucket: str | None
    dataset_prefix: str

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Check the values against each other. Raises ParametersError with every contradiction."""
        settings = cls(**{field.name: params[field.name] for field in fields(cls)})
        problems = settings._contradictions()
        if problems:
            raise ParametersError("The form's values do not fit: " + "; ".join(problems) + ".")
        return settings

    def _contradictions(self) -> list[str]:
        problems = []
        if self.epochs_min > self.epochs_max:
            problems.append(
                f"epochs_min {self.epochs_min} is above epochs_max {self.epochs_max}; raise the latter"
            )
        if self.max_parallel_jobs > self.max_jobs and not self.skip_tuning:
            problems.append(
                f"max_parallel_jobs {self.max_parallel_jobs} is above max_jobs {self.max_jobs}; lower it"
            )
        if self.dataset_prefix.startswith("s3:") and not self.dataset_prefix.startswith("s3://"):
            problems.append(f"dataset_prefix {self.dataset_prefix!r} is no URI; write s3://bucket/prefix")
        text = None if self.image_size is None else problem("image-size", self.image_size)
        return problems + ([text] if text else [])


def _epochs(pipeline: Pipeline) -> tuple[int, int]:
    """Ends of the searched range of epochs, or twice the fixed value."""
    match pipeline.tuning.search_space.get("epochs"):
        case Integer() | Continuous() as ends:
            return int(ends.min), int(ends.max)
        case Categorical() as choice:
            numbers = [int(value) for value in choice.values]
            return min(numbers), max(numbers)
        case _:
            fixed = int(pipeline.hyperparameters.get("epochs", 1))
            return fixed, fixed
