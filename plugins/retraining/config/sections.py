"""The sections of a pipeline file: every key, its default, its limits and its meaning."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from retraining.config.hyperparameters import IMAGE_SIZE, Trainable, Value, problem

log = logging.getLogger(__name__)

Policy = Literal["ignore", "warn", "fail"]
DeploymentStrategy = Literal["auto", "all_at_once", "canary", "linear"]
Scaling = Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"]
InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
ImageUri = Annotated[str, Field(pattern=r"^[^\s/]+/[^\s:@]+[:@]\S+$", max_length=255)]


class Section(BaseModel):
    """What all sections share: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSection(Section):
    """A section that names a container image."""

    @model_validator(mode="before")
    @classmethod
    def _named_by_uri(cls, values: Any) -> Any:
        old = {"framework_version", "py_version"}.intersection(values) if isinstance(values, dict) else ()
        if old:
            raise ValueError(
                f"{' and '.join(sorted(old))} no longer choose the image: leave them out for AWS's newest "
                "one, or name an image by its URI in image_uri"
            )
        return values


class Continuous(Section):
    """A real number between `min` and `max`."""

    type: Literal["continuous"]
    min: float
    max: float
    scaling: Scaling = "Auto"


class Integer(Section):
    """A whole number from `min` to `max`."""

    type: Literal["integer"]
    min: int
    max: int
    scaling: Scaling = "Auto"


class Categorical(Section):
    """One of some values."""

    type: Literal["categorical"]
    values: list[Value] = Field(min_length=1)


SearchRange = Annotated[Continuous | Integer | Categorical, Field(discriminator="type")]


class Dataset(Section):
    """Where the images are, and which are accepted."""

    prefix: str | None = Field(
        default=None, description="Key prefix in the bucket, or an s3:// URI; default datasets/<name>."
    )
    min_train_images: int = Field(default=2, ge=1, description="Fewest images of a class in train/.")
    min_valid_images: int = Field(default=1, ge=0, description="Fewest images of a class in valid/.")
    min_test_images: int = Field(default=1, ge=0, description="Fewest images of a class in test/.")
    max_leaked_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the images in valid/, and of those in test/, that may also be in another "
        "split, as the same file or a near duplicate; more stops the run.",
    )
    max_damaged_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the images that may be damaged: up to it they are left out of training and "
        "evaluation and listed; more stops the run.",
    )
    max_class_ratio: float = Field(
        default=10, ge=1, description="A split's largest class to its smallest, above which the run warns."
    )


class Model(Section):
    """The network: any torchvision classification architecture."""

    arch: str = Field(
        default="resnet50",
        pattern=r"^[a-z][a-z0-9_]*$",
        examples=["resnet18", "resnet50", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_0"],
        title="Architecture",
        description="A torchvision classification model, by its name in torchvision.",
    )
    trainable: Trainable = Field(
        default="auto",
        title="Trainable part",
        description="The head, the last block with it, or all; auto: the head on weights, else all.",
    )
    image_size: int | None = Field(
        default=None,
        ge=IMAGE_SIZE.low,
        le=IMAGE_SIZE.high,
        title="Image size",
        description="Side of the network's square input, in pixels; empty: chosen from the images' size, 224 "
        "at most.",
    )
    pretrained_prefix: str = Field(
        default="pretrained", description="Folder in the bucket; weights are in <prefix>/<arch>/."
    )


class Job(ImageSection):
    """The machine and the container of training jobs."""

    instance_type: InstanceType = Field(
        default="ml.m5.xlarge",
        examples=["ml.m5.xlarge", "ml.c5.2xlarge", "ml.g4dn.xlarge", "ml.g5.xlarge"],
        title="Training instance",
        description="Machine of every training job. A type with a GPU gets the GPU container.",
    )
    volume_size_gb: int = Field(default=30, ge=1, le=16384)
    max_runtime_seconds: int = Field(
        default=4 * 3600, ge=60, le=28 * 24 * 3600, description="Limit of one training job."
    )
    image_uri: ImageUri | None = Field(
        default=None,
        description="Image of training and evaluation; null: AWS's newest for PyTorch.",
    )
    spot: bool = Field(
        default=False,
        title="Spot capacity",
        description="Train on spare capacity, which is cheaper. An interrupted training continues from its "
        "checkpoint, an interrupted trial starts over.",
    )
    max_spot_wait_seconds: int = Field(
        default=3600, ge=0, description="How long a job may wait for spare capacity, in all."
    )
    keep_running_on_kill: bool = Field(
        default=False,
        description="Leave the job running when its task is killed; the next attempt adopts it.",
    )


class Network(Section):
    """Where jobs and endpoints run in the account's own network; by default they reach the internet."""

    subnets: list[Annotated[str, Field(pattern=r"^subnet-[0-9a-zA-Z]+$")]] = Field(
        default=[], max_length=16, description="Subnets of jobs and endpoints, with a way to S3."
    )
    security_group_ids: list[Annotated[str, Field(pattern=r"^sg-[0-9a-zA-Z]+$")]] = Field(
        default=[], max_length=5, description="Their security groups."
    )
    isolation: bool = Field(
        default=False, description="Containers reach nothing; SageMaker still brings their data and models."
    )

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.subnets) != bool(self.security_group_ids):
            raise ValueError("subnets and security_group_ids go together: give both or neither")
        return self


KmsKey = Annotated[str, Field(pattern=r"^[a-zA-Z0-9:/_-]+$", max_length=2048)]


class Encryption(Section):
    """Keys of AWS KMS, by id, alias or ARN; without them AWS encrypts with keys of its own."""

    kms_key: KmsKey | None = Field(default=None, description="Of what jobs and endpoints write to S3.")
    volume_key: KmsKey | None = Field(
        default=None,
        description="Of the volumes of jobs and endpoints. Instance types with local NVMe storage take none.",
    )


TAG_TEXT = r"^[\w\s.:/=+\-@]*$"


class Objective(Section):
    """The objective metric: one that the script logs."""

    metric: str = "valid:accuracy"
    type: Literal["Maximize", "Minimize"] = "Maximize"


class Tuning(Section):
    """The search for hyperparameters."""

    strategy: Literal["Bayesian", "Random", "Hyperband", "Grid"] = "Bayesian"
    max_jobs: int = Field(
        default=6,
        ge=1,
        le=750,
        title="Trials",
        description="Training jobs that the search may start.",
    )
    max_parallel_jobs: int = Field(
        default=2,
        ge=1,
        le=100,
        title="Parallel trials",
        description="Trials at a time; above the number of trials: all at once. With fewer the search takes "
        "longer and learns more from each.",
    )
    max_runtime_seconds: int = Field(default=24 * 3600, ge=120, description="Limit of the whole search.")
    early_stopping: bool = Field(
        default=True, description="Stop trials that are worse than the median of earlier ones."
    )
    random_seed: int | None = Field(
        default=None, ge=0, description="The same seed proposes the same hyperparameters."
    )
    warm_start: bool = Field(
        default=True, description="Start from the last run's tuning job, where the two are comparable."
    )
    objective: Objective = Objective()
    search_space: dict[str, SearchRange] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.strategy == "Hyperband" and self.early_stopping:
            raise ValueError("Hyperband stops trials by itself: set early_stopping: false")
        if self.strategy == "Grid" and any(r.type != "categorical" for r in self.search_space.values()):
            raise ValueError("Grid takes categorical ranges only")
        for name, search_range in self.search_space.items():
            _check_range(name, search_range)
        return self


class DebuggerRule(Section):
    """A Debugger rule: what a finding means for the run, and the rule's parameters, as strings."""

    policy: Policy = "warn"
    parameters: dict[str, str] = {}
    stop_training: bool = Field(default=False, description="End the job as soon as the rule finds something.")


class Tensors(Section):
    """How often the Debugger hook saves tensors, in steps."""

    train_save_interval: int = Field(default=100, ge=1)
    eval_save_interval: int = Field(default=10, ge=1)


class Profiler(Section):
    """What the profiler measures."""

    system_interval_ms: Literal[100, 200, 500, 1000, 5000, 60000] = 500
    framework_steps: int = Field(
        default=10, ge=0, description="Steps profiled in the framework; 0 switches it off."
    )
    report: bool = Field(default=True, description="Run the rule ProfilerReport.")


class Evaluation(Section):
    """The processing job that compares challenger and champion on the test split."""

    instance_type: InstanceType = "ml.m5.xlarge"
    volume_size_gb: int = Field(default=30, ge=1, le=16384)
    max_runtime_seconds: int = Field(default=3600, ge=60, le=5 * 24 * 3600)
    latency_images: int = Field(default=50, ge=0, description="Images timed one by one on the CPU.")
    bootstrap_samples: int = Field(default=2000, ge=100, le=1_000_000)


class Gate(Section):
    """When a challenger may replace the champion."""

    min_improvement: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="Accuracy that the challenger must gain, with the confidence below. A negative number "
        "lets one pass that is at most so much worse.",
    )
    confidence: float = Field(
        default=0.95, ge=0.5, le=0.9999, description="One-sided, of the improvement's lower bound."
    )
    min_accuracy: float = Field(
        default=0.0, ge=0, le=1, description="Accuracy that a first model must reach, without a champion."
    )
    max_class_regression: float = Field(
        default=0.2, ge=0, le=1, description="Recall that any class may lose against the champion."
    )
    allow_lost_classes: bool = Field(
        default=False,
        description="Let a challenger that lacks classes of the champion pass like any other; otherwise a "
        "person is asked, whatever approval.required says.",
    )

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        """Reads the old name of max_class_regression, with a warning."""
        if isinstance(values, dict) and "max_breed_regression" in values:
            if "max_class_regression" in values:
                raise ValueError(
                    "max_breed_regression is the old name of max_class_regression: keep the latter"
                )
            log.warning("gate.max_breed_regression is now max_class_regression: rename it")
            values = {**values}
            values["max_class_regression"] = values.pop("max_breed_regression")
        return values


class Approval(Section):
    """Whether a person is asked before a model goes into service."""

    required: bool = Field(
        default=False,
        title="Ask before deploying",
        description="Wait for a person to approve the model that passed the gate.",
    )
    timeout_hours: float | None = Field(
        default=72,
        gt=0,
        description="Without a response in this time the answer is no; null waits forever.",
    )


class DataCapture(Section):
    """Requests and responses of the endpoint, kept in S3 in SageMaker's format."""

    enabled: bool = Field(
        default=False, title="Data capture", description="Keep requests and responses of the endpoint in S3."
    )
    percent: int = Field(default=100, ge=1, le=100, description="Share of the requests that is kept.")


class Endpoint(ImageSection):
    """The endpoint that serves the model."""

    name: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
        description="Default: the pipeline's name.",
    )
    instance_type: InstanceType = Field(
        default="ml.m5.large",
        examples=["ml.t2.medium", "ml.m5.large", "ml.c5.xlarge", "ml.g4dn.xlarge"],
        title="Endpoint instance",
        description="Machine that serves the model.",
    )
    instance_count: int = Field(
        default=1, ge=1, le=100, title="Endpoint instances", description="Number of these machines."
    )
    image_uri: ImageUri | None = Field(
        default=None,
        description="Image that serves the model; null: AWS's for Ray Serve. One for TorchServe "
        "(pytorch-inference) works, too.",
    )
    data_capture: DataCapture = DataCapture()


class Alarms(Section):
    """Metrics of the endpoint that roll a deployment back; null leaves an alarm out."""

    max_5xx: int | None = Field(
        default=3, ge=0, description="Responses with status 5xx that a period may have."
    )
    max_latency_ms: float | None = Field(
        default=2000, gt=0, description="The model's latency for one request, 99th percentile of a period."
    )
    period_seconds: Literal[60, 120, 180, 300] = 60


class Deployment(Section):
    """How traffic moves from the old model to the new one."""

    strategy: DeploymentStrategy = Field(
        default="auto",
        title="Traffic shifting",
        description="How traffic moves to the new model; auto: a canary, or all at once with one instance. "
        "The alarms roll back in every case.",
    )
    share_percent: int = Field(
        default=10,
        ge=5,
        le=50,
        description="Size of the canary, or of each step of a linear shift, in whole instances.",
    )
    bake_seconds: int = Field(
        default=180,
        ge=0,
        le=3600,
        title="Bake time (s)",
        description="How long the alarms watch each step of the traffic.",
    )
    termination_wait_seconds: int = Field(
        default=0, ge=0, le=3600, description="How long the old fleet stays after the last step."
    )
    max_runtime_seconds: int = Field(default=3600, ge=600, le=28800)
    alarms: Alarms = Alarms()


class Verify(Section):
    """What the endpoint has to do right after a deployment."""

    images: int | None = Field(
        default=60, ge=1, description="Test images sent, spread over the classes; null sends all."
    )
    shown: int = Field(default=5, ge=1, le=50, description="Predictions kept in full.")
    tolerance: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description="Accepted difference of a probability from the evaluation's.",
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="Median time of a request; null only reports it."
    )


class Retire(Section):
    """How much is kept of earlier runs."""

    keep: int = Field(
        default=5, ge=2, description="Models, endpoint configurations and run folders that stay."
    )


class Sns(Section):
    """Notifications to an SNS topic."""

    topic_arn: str = Field(pattern=r"^arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:.+$")


class Slack(Section):
    """Notifications to Slack, over an Airflow connection of the type `slackwebhook`."""

    connection: str = "slack_default"


class Email(Section):
    """Notifications by e-mail, over an Airflow connection of the type `smtp`."""

    to: list[str] = Field(min_length=1)
    sender: str | None = Field(default=None, description="Default: that of the connection.")
    connection: str = "smtp_default"


class Notifications(Section):
    """Who is told about a run, and when; nobody by default."""

    events: list[Literal["success", "failure", "approval"]] = ["success", "failure", "approval"]
    sns: Sns | None = None
    slack: Slack | None = None
    email: Email | None = None


def _check_range(name: str, search_range: Continuous | Integer | Categorical) -> None:
    ends: list[Value]
    if isinstance(search_range, Categorical):
        ends = list(search_range.values)
        if len(set(ends)) != len(ends):
            raise ValueError(f"search_space.{name}: a value is listed twice")
    else:
        ends = [search_range.min, search_range.max]
        if search_range.min >= search_range.max:
            raise ValueError(
                f"search_space.{name}: min {search_range.min} is not below max {search_range.max}"
            )
        if search_range.scaling == "Logarithmic" and search_range.min <= 0:
            raise ValueError(f"search_space.{name}: Logarithmic scaling needs min above 0")
        if search_range.scaling == "ReverseLogarithmic" and not 0 <= search_range.min < search_range.max < 1:
            raise ValueError(f"search_space.{name}: ReverseLogarithmic scaling needs 0 <= min and max < 1")
    for value in ends:
        if text := problem(name, value):
            raise ValueError(f"search_space.{text}")
