"""A pipeline as data: the typed form of a file in `dags/pipelines/`.

Cheap to import, because a DAG file does. Sections are in `sections.py`; an unknown key is an error
that names the file, the key and the nearest known one.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from retraining.config.hyperparameters import Value, near_match, problem
from retraining.config.sections import (
    TAG_TEXT,
    Approval,
    Dataset,
    DebuggerRule,
    Deployment,
    Encryption,
    Endpoint,
    Evaluation,
    Gate,
    Job,
    Model,
    Network,
    Notifications,
    Profiler,
    Retire,
    Section,
    Tensors,
    Tuning,
    Verify,
)

SAGEMAKER_NAME = 63
"""The most characters of a model package group's and an endpoint's name."""
_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")  # Airflow's
# By PyYAML beside its own errors: not UTF-8 or no such date, a tag that does not fit its value, too deep.
_RAISED_BY_YAML = (ValueError, AttributeError, RecursionError)
_NAME_LINE = re.compile(r"^name:\s*['\"]?([A-Za-z]\w{0,63})\b", re.ASCII | re.MULTILINE)


class PipelineFileError(ValueError):
    """A pipeline file that cannot be used; the text lists every problem with its key."""


class DagIds:
    """The ids of the DAGs, which follow from a pipeline's name."""

    name: str

    @property
    def dag_id(self) -> str:
        return f"{self.name}_retraining"

    @property
    def rollback_dag_id(self) -> str:
        return f"{self.name}_rollback"


class Pipeline(DagIds, Section):
    """One retraining pipeline, as its file describes it."""

    name: str = Field(
        pattern=r"^[a-z](_*[a-z0-9])*$",
        max_length=SAGEMAKER_NAME,
        description="The DAGs are called this with _retraining and _rollback; model group and endpoint with "
        "hyphens for underscores.",
    )
    description: str = ""
    schedule: str | None = Field(
        default="@weekly", description="Cron expression or preset; null runs by hand only."
    )
    owner: str = "ml"
    bucket: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        title="Bucket",
        description="Empty: sagemaker-<region>-<account>.",
    )
    role: str = Field(
        default="SageMakerRetrainingRole", description="Name or ARN of the jobs' execution role."
    )
    network: Network = Network()
    encryption: Encryption = Encryption()
    tags: dict[
        Annotated[str, Field(pattern=TAG_TEXT, min_length=1, max_length=128)],
        Annotated[str, Field(pattern=TAG_TEXT, max_length=256)],
    ] = Field(
        default={}, max_length=40, description="Of every job, model and endpoint, beside pipeline and run."
    )
    dataset: Dataset = Dataset()
    model: Model = Model()
    job: Job = Job()
    hyperparameters: dict[str, Value] = Field(
        default={}, description="Used where tuning does not search for them."
    )
    tuning: Tuning
    debugger: Literal["service", "in_job", "off"] = "service"
    rules: dict[str, DebuggerRule] = Field(default={}, description="Debugger rules by their names.")
    rules_wait_seconds: int = Field(
        default=900, ge=0, description="How long a run waits for rules that finish after the training."
    )
    tensors: Tensors = Tensors()
    profiler: Profiler = Profiler()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    model_package_group: str | None = Field(
        default=None,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
        description="Group in the model registry. Default: the pipeline's name.",
    )
    approval: Approval = Approval()
    endpoint: Endpoint = Endpoint()
    deployment: Deployment = Deployment()
    verify: Verify = Verify()
    retire: Retire = Retire()
    notifications: Notifications = Notifications()
    max_cost_usd: float | None = Field(
        default=None,
        gt=0,
        title="Most cost (USD)",
        description="A run that may cost more by its limits does not start; empty for no limit.",
    )
    prices: dict[str, float] = Field(
        default={}, description="USD an hour by instance type, where they differ from the price table."
    )

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, value: str | None) -> str | None:
        from croniter import croniter

        if value is not None and value not in _PRESETS and not croniter.is_valid(value):
            raise ValueError(
                f"{value!r} is no cron expression: give five fields, as in '0 6 * * 1' for Mondays at six "
                f"(UTC), one of {', '.join(_PRESETS)}, or null"
            )
        return value

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
    def asset_name(self) -> str:
        """The dataset as an asset of Airflow."""
        return f"{self.name}_dataset"

    @property
    def slug(self) -> str:
        """The name as SageMaker allows it: hyphens, no underscores."""
        return self.name.replace("_", "-")

    @property
    def dataset_prefix(self) -> str:
        """Key prefix of the dataset in the bucket, or its s3:// URI."""
        return self.dataset.prefix or f"datasets/{self.name}"

    @property
    def endpoint_name(self) -> str:
        return self.endpoint.name or self.slug

    @property
    def package_group(self) -> str:
        return self.model_package_group or self.slug


@dataclass(frozen=True)
class BrokenPipeline(DagIds):
    """A file that cannot be used, and why. Its DAGs bear the name in the file, or else the file's own."""

    name: str
    error: str


def load_pipelines(folder: Path, only: str | None = None) -> list[Pipeline | BrokenPipeline]:
    """Every file of a folder, by file name. A file that cannot be used leaves the others as they are.

    With `only`, a pipeline's name, files that do not have it are not read further, if any file has it.
    """
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    named = [path for path in paths if only is not None and only in _names(path)]
    return _loaded(named or paths)


def _loaded(paths: Sequence[Path]) -> list[Pipeline | BrokenPipeline]:
    found: dict[str, Pipeline | BrokenPipeline] = {}
    errors: dict[Path, str] = {}
    for path in paths:
        try:
            pipeline = load_pipeline(path)
        except PipelineFileError as error:
            errors[path] = str(error)
            continue
        if pipeline.name in found:
            errors[path] = f"{path}: the name {pipeline.name!r} is taken by another file; choose another"
        else:
            found[pipeline.name] = pipeline
    for path, reason in errors.items():
        names = _names(path)
        numbered = (f"{names[-1]}_{number}" for number in count(2))
        name = next(name for name in chain(names, numbered) if name not in found)
        found[name] = BrokenPipeline(name, reason)
    return list(found.values())


def _names(path: Path) -> list[str]:
    """The names that a file may stand for: what it says, and its own."""
    return [*_NAME_LINE.findall(_text(path)), re.sub(r"\W", "_", path.stem, flags=re.ASCII)]


def _text(path: Path) -> str:
    """A file's text, for a name in it; empty for what cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def load_pipeline(path: Path) -> Pipeline:
    """Read one file. Raises PipelineFileError, which lists every problem with its key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PipelineFileError(f"{path}: it cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, *_RAISED_BY_YAML) as error:
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
    """The type under `key` in a section, a mapping, or a union whose members differ in `type`."""
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
