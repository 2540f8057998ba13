"""A pipeline as data: the typed form of a file in `dags/pipelines/`.

Cheap to import, because a DAG file does. Every key has its default and its meaning here; an unknown key is an
error that names the file, the key and the nearest known one.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from retraining.hyperparameters import TRAINABLE, Value, near_match, problem

Policy = Literal["ignore", "warn", "fail"]
Scaling = Literal["Auto", "Linear", "Logarithmic", "ReverseLogarithmic"]
InstanceType = Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")]
INSTANCE_TYPE_PATTERN = r"^ml\.[a-z0-9-]+\.[a-z0-9]+$"


class PipelineFileError(ValueError):
    """A pipeline file that cannot be used; the text lists every problem with its key."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Continuous(_Section):
    """A real number between `min` and `max`."""

    type: Literal["continuous"]
    min: float
    max: float
    scaling: Scaling = "Auto"


class Integer(_Section):
    """A whole number from `min` to `max`."""

    type: Literal["integer"]
    min: int
    max: int
    scaling: Scaling = "Auto"


class Categorical(_Section):
    """One of some values."""

    type: Literal["categorical"]
    values: list[Value] = Field(min_length=1)


SearchRange = Annotated[Continuous | Integer | Categorical, Field(discriminator="type")]


class Dataset(_Section):
    """Where the pictures are, and how few are too few."""

    prefix: str | None = Field(
        default=None, description="Key prefix in the bucket, or an s3:// URI; default datasets/<name>."
    )
    min_train_images: int = Field(default=2, ge=1, description="Fewest pictures of a class in train/.")
    min_valid_images: int = Field(default=1, ge=0, description="Fewest pictures of a class in valid/.")
    min_test_images: int = Field(default=1, ge=0, description="Fewest pictures of a class in test/.")


class Model(_Section):
    """The network: any torchvision classification architecture."""

    arch: str = Field(default="resnet50", pattern=r"^[a-z][a-z0-9_]*$")
    trainable: Literal["auto", "head", "last_block", "all"] = "auto"
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="Side of the square that the network sees, in pixels; null: the script chooses by the "
        "pictures' size, 224 at most.",
    )
    pretrained_prefix: str = Field(
        default="pretrained", description="Folder in the bucket; weights are in <prefix>/<arch>/."
    )


class Job(_Section):
    """The machine and the container of training jobs."""

    instance_type: InstanceType = "ml.m5.xlarge"
    instance_count: int = Field(default=1, ge=1, le=1, description="The script trains on one machine.")
    volume_size_gb: int = Field(default=30, ge=1, le=16384)
    max_runtime_seconds: int = Field(
        default=4 * 3600, ge=60, le=28 * 24 * 3600, description="Limit of one training job."
    )
    framework_version: str = Field(default="2.6", description="PyTorch version of AWS's container.")
    py_version: str = Field(default="py312", description="Python version of AWS's container.")


class Objective(_Section):
    """What tuning optimises: the name of a metric that the script's log line carries."""

    metric: str = "valid:accuracy"
    type: Literal["Maximize", "Minimize"] = "Maximize"


class Tuning(_Section):
    """The search for hyperparameters."""

    strategy: Literal["Bayesian", "Random", "Hyperband", "Grid"] = "Bayesian"
    max_jobs: int = Field(default=6, ge=1, le=750)
    max_parallel_jobs: int = Field(default=2, ge=1, le=100)
    max_runtime_seconds: int = Field(default=24 * 3600, ge=120, description="Limit of the whole search.")
    early_stopping: bool = Field(
        default=True, description="Stop trials that do worse than the median of earlier ones."
    )
    random_seed: int | None = Field(
        default=None, ge=0, description="The same seed proposes the same hyperparameters."
    )
    objective: Objective = Objective()
    search_space: dict[str, SearchRange] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_parallel_jobs > self.max_jobs:
            raise ValueError(
                f"max_parallel_jobs {self.max_parallel_jobs} is more than max_jobs {self.max_jobs}"
            )
        if self.strategy == "Hyperband" and self.early_stopping:
            raise ValueError("Hyperband stops trials by itself: set early_stopping: false")
        if self.strategy == "Grid" and any(r.type != "categorical" for r in self.search_space.values()):
            raise ValueError("Grid takes categorical ranges only")
        for name, search_range in self.search_space.items():
            _check_range(name, search_range)
        return self


class DebuggerRule(_Section):
    """A Debugger rule: what its finding means for the run, and its own parameters, as strings."""

    policy: Policy = "warn"
    parameters: dict[str, str] = {}
    stop_training: bool = Field(default=False, description="End the job as soon as the rule finds something.")


class Tensors(_Section):
    """How often the Debugger hook saves tensors, in steps."""

    train_save_interval: int = Field(default=100, ge=1)
    eval_save_interval: int = Field(default=10, ge=1)


class Profiler(_Section):
    """What the profiler measures."""

    system_interval_ms: Literal[100, 200, 500, 1000, 5000, 60000] = 500
    framework_steps: int = Field(
        default=10, ge=0, description="Steps profiled in the framework; 0 switches it off."
    )
    report: bool = Field(default=True, description="Run the rule ProfilerReport.")


class Endpoint(_Section):
    """The endpoint that serves the model."""

    name: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
        description="Default: the pipeline's name.",
    )
    instance_type: InstanceType = "ml.m5.large"
    instance_count: int = Field(default=1, ge=1, le=100)
    framework_version: str = Field(default="2.6", description="PyTorch version of AWS's inference container.")
    py_version: str = "py312"


class Verify(_Section):
    """What is asked of the endpoint after a deployment."""

    images: int | None = Field(
        default=60, ge=1, description="Test pictures sent, spread over the classes; null sends all."
    )
    shown: int = Field(default=5, ge=1, le=50, description="Answers kept in full.")


class Pipeline(_Section):
    """One retraining pipeline, as its file says it."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,63}$", description="Also the DAG id, followed by _retraining."
    )
    description: str = ""
    schedule: str | None = Field(
        default="@weekly", description="Cron expression or preset; null runs by hand only."
    )
    owner: str = "ml"
    bucket: str | None = Field(default=None, description="Default: sagemaker-<region>-<account>.")
    role: str = Field(
        default="SageMakerRetrainingRole", description="Name or ARN of the jobs' execution role."
    )
    dataset: Dataset = Dataset()
    model: Model = Model()
    job: Job = Job()
    hyperparameters: dict[str, Value] = Field(
        default={}, description="Used as they are, unless tuning searches for them."
    )
    tuning: Tuning
    debugger: Literal["service", "in_job", "off"] = "service"
    rules: dict[str, DebuggerRule] = {}
    rules_wait_seconds: int = Field(
        default=900, ge=0, description="How long a run waits for rules that end after the training."
    )
    tensors: Tensors = Tensors()
    profiler: Profiler = Profiler()
    endpoint: Endpoint = Endpoint()
    verify: Verify = Verify()

    @field_validator("debugger", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        """YAML 1.1 reads a bare `off` as false."""
        return "off" if value is False else value

    @field_validator("hyperparameters")
    @classmethod
    def _known(cls, values: dict[str, Value]) -> dict[str, Value]:
        problems = [text for name, value in values.items() if (text := problem(name, value))]
        if problems:
            raise ValueError("; ".join(problems))
        return values

    @model_validator(mode="after")
    def _can_skip_tuning(self) -> Self:
        missing = sorted(self.tuning.search_space.keys() - self.hyperparameters.keys())
        if missing:
            raise ValueError(
                f"hyperparameters: {', '.join(missing)} missing; a run that skips tuning needs a value"
            )
        return self

    @property
    def dag_id(self) -> str:
        return f"{self.name}_retraining"

    @property
    def slug(self) -> str:
        """The name as SageMaker allows it: hyphens, no underscores."""
        return self.name.replace("_", "-")

    @property
    def endpoint_name(self) -> str:
        return self.endpoint.name or self.slug


def load_pipelines(folder: Path) -> list[Pipeline]:
    """Every pipeline of a folder, by file name.

    Raises PipelineFileError for the first file that cannot be used.
    """
    pipelines: dict[str, Pipeline] = {}
    for path in sorted(folder.glob("*.yaml")):
        pipeline = load_pipeline(path)
        if pipeline.name in pipelines:
            raise PipelineFileError(
                f"{path}: the name {pipeline.name!r} is taken by another file; choose another"
            )
        pipelines[pipeline.name] = pipeline
    return list(pipelines.values())


def load_pipeline(path: Path) -> Pipeline:
    """Read one file. Raises PipelineFileError, which lists every problem with its key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PipelineFileError(f"{path}: not YAML: {error}") from error
    if not isinstance(content, dict):
        raise PipelineFileError(f"{path}: a mapping of keys is expected, found {type(content).__name__}")
    try:
        return Pipeline.model_validate(content)
    except ValidationError as error:
        lines = [_explain(details["type"], details["loc"], details["msg"]) for details in error.errors()]
        raise PipelineFileError(f"{path}: " + "; ".join(lines)) from error


def _explain(kind: str, location: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{near_match(str(location[-1]), _keys_beside(location))}"
    text = message.removeprefix("Value error, ")
    return f"{key}: {text}" if key else text


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the section of a wrong key knows."""
    section: Any = Pipeline
    for part in location[:-1]:
        section = _member(section, str(part))
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _member(annotation: Any, key: str) -> Any:
    """The type found under `key` in a section, a mapping, or a union that is told apart by its `type`."""
    while typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(key)
        return field.annotation if field else None
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(
            (m for m in typing.get_args(annotation) if getattr(m, "__name__", "").lower() == key), None
        )
    return None


def _check_range(name: str, search_range: Continuous | Integer | Categorical) -> None:
    ends: list[Value]
    if isinstance(search_range, Categorical):
        ends = list(search_range.values)
        if len(set(ends)) != len(ends):
            raise ValueError(f"search_space.{name}: a value stands there twice")
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


__all__ = ["TRAINABLE", "Pipeline", "PipelineFileError", "load_pipeline", "load_pipelines"]
