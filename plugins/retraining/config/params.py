"""The trigger form of a run: its fields, made from the pipeline's schema, and the check of its values.

Airflow checks every field by its JSON schema; `RunSettings.from_params` checks the fields against each other,
as the first thing a run does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self, cast

from airflow.sdk import Param
from pydantic import BaseModel, Field

from retraining.config.architectures import ARCHITECTURES
from retraining.config.hyperparameters import EPOCHS, HYPERPARAMETERS, Numeric, near_match, problem
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Categorical, Continuous, DeploymentStrategy, Integer, Section
from retraining.errors import ParametersError

_OPEN = ""  # Airflow's own section, the only one that is open at first

# By the form's sections: each field with the key of the pipeline file that gives its default, limits and
# description, or None for a field of `_FormOnly`.
_FIELDS: Mapping[str, Mapping[str, str | None]] = {
    _OPEN: {"force": None, "max_cost_usd": "max_cost_usd", "spot": "job.spot"},
    "Tuning": {
        "skip_tuning": None,
        "max_jobs": "tuning.max_jobs",
        "max_parallel_jobs": "tuning.max_parallel_jobs",
        "epochs_min": None,
        "epochs_max": None,
    },
    "Without tuning": {"lr": None, "momentum": None, "batch_size": None},
    "Model": {"arch": "model.arch", "trainable": "model.trainable", "image_size": "model.image_size"},
    "Machines": {
        "instance_type": "job.instance_type",
        "endpoint_instance_type": "endpoint.instance_type",
        "endpoint_instance_count": "endpoint.instance_count",
    },
    "Deployment": {
        "approval": "approval.required",
        "deployment_strategy": "deployment.strategy",
        "bake_seconds": "deployment.bake_seconds",
        "data_capture": "endpoint.data_capture.enabled",
    },
    "Data": {"bucket": "bucket", "dataset_prefix": None},
}


_LR, _MOMENTUM, _BATCH_SIZE = (
    cast("Numeric", HYPERPARAMETERS[name]) for name in ("lr", "momentum", "batch-size")
)


class _FormOnly(Section):
    """The fields that correspond to no single key of the pipeline file."""

    force: bool = Field(
        title="Run anyway",
        description="Run even if data, code and settings are those of the last run.",
    )
    skip_tuning: bool = Field(
        title="Skip tuning",
        description="Train once, with the last run's best hyperparameters, or else the pipeline file's.",
    )
    epochs_min: int = Field(
        ge=EPOCHS.low,
        le=EPOCHS.high,
        title="Fewest epochs",
        description="Lower end of the range of epochs that tuning searches.",
    )
    epochs_max: int = Field(
        ge=EPOCHS.low,
        le=EPOCHS.high,
        title="Most epochs",
        description="Upper end of that range. With equal ends, epochs are not searched.",
    )
    lr: float | None = Field(
        gt=_LR.low,
        le=_LR.high,
        title="Learning rate",
        description="Of a run that skips tuning; empty: the last run's best, or else the pipeline file's.",
    )
    momentum: float | None = Field(
        ge=_MOMENTUM.low, le=_MOMENTUM.high, title="Momentum", description="As the learning rate."
    )
    batch_size: int | None = Field(
        ge=_BATCH_SIZE.low, le=_BATCH_SIZE.high, title="Batch size", description="As the learning rate."
    )
    dataset_prefix: str = Field(
        min_length=1,
        title="Dataset",
        description="Key prefix in the bucket, or an s3:// URI, of the folders train/, valid/ and test/.",
    )

    @classmethod
    def of(cls, pipeline: Pipeline) -> Self:
        """The fields' defaults for a pipeline."""
        low, high = _epochs(pipeline)
        return cls(
            force=False,
            skip_tuning=False,
            epochs_min=low,
            epochs_max=high,
            lr=None,
            momentum=None,
            batch_size=None,
            dataset_prefix=pipeline.dataset_prefix,
        )


def form(pipeline: Pipeline) -> dict[str, Param]:
    """The fields of the trigger form, with the pipeline's values as defaults."""
    extra = _FormOnly.of(pipeline)
    params: dict[str, Param] = {}
    for section, keys in _FIELDS.items():
        for name, key in keys.items():
            value = _value(pipeline, key) if key else getattr(extra, name)
            schema = schema_of(Pipeline, key) if key else schema_of(_FormOnly, name)
            schema["description"] = f"{schema['description']} {limits(schema)}{_default(value)}"
            if section:
                schema["section"] = section
            params[name] = Param(value, **schema)
    return params


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
    lr: float | None
    momentum: float | None
    batch_size: int | None
    bucket: str | None
    dataset_prefix: str

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Check the values against each other. Raises ParametersError with everything that is wrong."""
        settings = cls(**{field.name: params[field.name] for field in fields(cls)})
        problems = settings._contradictions()
        if problems:
            raise ParametersError("The form's values cannot be used: " + "; ".join(problems) + ".")
        return settings

    def _contradictions(self) -> list[str]:
        problems = []
        if self.epochs_min > self.epochs_max:
            problems.append(
                f"epochs_min {self.epochs_min} is above epochs_max {self.epochs_max}; raise the latter"
            )
        given = [name for name in ("lr", "momentum", "batch_size") if getattr(self, name) is not None]
        if given and not self.skip_tuning:
            problems.append(f"{', '.join(given)}: set skip_tuning, too, or leave empty what tuning searches")
        if self.arch not in ARCHITECTURES:
            near = near_match(self.arch.lower().replace("-", "_"), ARCHITECTURES)
            problems.append(f"arch {self.arch!r} is no classification model of torchvision{near}")
        if self.dataset_prefix.startswith("s3:") and not self.dataset_prefix.startswith("s3://"):
            problems.append(f"dataset_prefix {self.dataset_prefix!r} is no URI; write s3://bucket/prefix")
        text = None if self.image_size is None else problem("image-size", self.image_size)
        return problems + ([text] if text else [])


def limits(schema: Mapping[str, Any]) -> str:
    """The limits of a number in words; empty without any."""
    names = ("exclusiveMinimum", "minimum", "maximum")
    above, low, high = (None if name not in schema else f"{schema[name]:,}" for name in names)
    if above is not None:
        return f"Above {above}{'' if high is None else f', at most {high}'}. "
    if low is not None:
        return f"At least {low}. " if high is None else f"From {low} to {high}. "
    return ""


def _default(value: Any) -> str:
    if value is None:
        return "Default: empty."
    return f"Default: {('no', 'yes')[value] if isinstance(value, bool) else value}."


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


def _value(pipeline: Pipeline, key: str) -> Any:
    value: Any = pipeline
    for part in key.split("."):
        value = getattr(value, part)
    return value


def schema_of(model: type[BaseModel], key: str) -> dict[str, Any]:
    """The JSON schema of a dotted key, as Airflow's form reads it: optional values have a list of types."""
    document = _document(model)
    node = document
    for part in key.split("."):
        node = node["properties"][part]
        node = document["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    shape = {name: value for name, value in node.items() if name not in {"default", "anyOf"}}
    for option in node.get("anyOf", []):
        types = ["null", option["type"]] if option.get("type", "null") != "null" else None
        shape |= {**option, "type": types} if types else {}
    return shape


@cache
def _document(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()
