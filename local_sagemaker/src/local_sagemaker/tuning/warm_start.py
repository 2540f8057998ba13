"""Warm start: what a tuning job inherits from up to five finished tuning jobs, its parents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_sagemaker.errors import ResourceLimitExceededError, ValidationError
from local_sagemaker.store import Document
from local_sagemaker.tuning.plans import MAX_JOBS, Definition, Plan, read_plan
from local_sagemaker.tuning.search import Trial
from local_sagemaker.tuning.trials import Summary, best, seen_by_optimiser

_FINISHED = frozenset({"Completed", "Stopped", "Failed"})
_IDENTICAL = "IdenticalDataAndAlgorithm"

# AWS's list, as published with its message; other members of a definition must equal the parents'.
_MAY_CHANGE = (
    "algorithmSpecification",
    "inputDataConfig",
    "outputDataConfig",
    "staticHyperParameters",
    "roleArn",
    "resourceConfig",
    "stoppingCondition",
    "vpcConfig",
    "enableManagedSpotTraining",
    "checkpointConfig",
)
_SAME_DATA_AND_ALGORITHM = ("algorithmSpecification", "inputDataConfig")  # for IdenticalDataAndAlgorithm


Find = Callable[[str], Document | None]  # a tuning job by its name


@dataclass(frozen=True)
class Inheritance:
    """`best` is set only for IdenticalDataAndAlgorithm: objectives on other data are not comparable."""

    trials: tuple[Trial, ...] = ()
    best: Summary | None = None


def inherit(request: Mapping[str, Any], plan: Plan, find: Find) -> Inheritance:
    """What a request inherits from its parents. Raises ValidationError or ResourceLimitExceededError."""
    config = request.get("WarmStartConfig")
    if config is None:
        return Inheritance()
    if len(plan.definitions) > 1:
        raise ValidationError(
            "Warm start needs a single TrainingJobDefinition; TrainingJobDefinitions has several."
        )
    parents = [_parent(item, find) for item in config["ParentHyperParameterTuningJobs"]]
    identical = config["WarmStartType"] == _IDENTICAL
    trials: list[Trial] = []
    summaries: list[Summary] = []
    for parent in parents:
        definition = read_plan(parent).definitions[0]
        _check_compatible(parent, definition, plan.definitions[0], identical)
        ended = [record for record in parent["_trials"] if "Summary" in record]
        trials += [seen_by_optimiser(record, definition) for record in ended]
        name = parent["HyperParameterTuningJobName"]
        summaries += [{**record["Summary"], "TuningJobName": name} for record in ended]
    _check_total(plan, trials)
    return Inheritance(tuple(trials), best(summaries, maximize=plan.maximize) if identical else None)


def _parent(item: Mapping[str, Any], find: Find) -> Document:
    name = item.get("HyperParameterTuningJobName", "")
    parent = find(name)
    if parent is None:
        raise ValidationError(
            f"Parent tuning job {name!r} does not exist; name finished tuning jobs of this account."
        )
    if "TrainingJobDefinitions" in parent:
        raise ValidationError(
            f"Parent tuning job {name!r} has several TrainingJobDefinitions and cannot be a parent."
        )
    status = parent["HyperParameterTuningJobStatus"]
    if status not in _FINISHED:
        raise ValidationError(
            f"Parent tuning job {name!r} is {status}: all parents must be Completed, Stopped or Failed "
            "before a tuning job can start from them."
        )
    return parent


def _check_compatible(parent: Document, old: Definition, new: Definition, identical: bool) -> None:
    name = parent["HyperParameterTuningJobName"]
    if old.objective != new.objective:
        raise ValidationError(
            f"The objective metric must be the same as in all parent tuning jobs: {name!r} has "
            f"{_shown(old)}, the request {_shown(new)}."
        )
    if _names(old) != _names(new):
        raise ValidationError(
            "The set of tunable plus static HyperParameter names is not the same across current and parent "
            "tuning jobs. Please ensure this set is constant when warm starting. Note that previously static "
            "HyperParameters can be tuned in warm start jobs and vice versa. "
            f"Different from {name!r}: {sorted(_names(old) ^ _names(new))}."
        )
    _check_unchanged(name, old, new, identical)


def _check_unchanged(name: str, old: Definition, new: Definition, identical: bool) -> None:
    allowed = [member for member in _MAY_CHANGE if not (identical and member in _SAME_DATA_AND_ALGORITHM)]
    changed = {
        member
        for member in old.request.keys() | new.request.keys()
        if old.request.get(member) != new.request.get(member)
    }
    changed = {member[0].lower() + member[1:] for member in changed} - set(allowed)
    if identical and "algorithmSpecification" in changed and _image(old) == _image(new):
        changed.discard("algorithmSpecification")
    if changed:
        raise ValidationError(
            "Only the following fields in TrainingJobDefinition are allowed to change: "
            f"[{', '.join(allowed)}]. Changed since {name!r}: {sorted(changed)}."
        )


def _check_total(plan: Plan, inherited: Sequence[Trial]) -> None:
    total = plan.max_jobs + len(inherited)
    if total > MAX_JOBS:
        raise ResourceLimitExceededError(
            f"The training jobs of parents count against the limit of {MAX_JOBS}: the parents have "
            f"{len(inherited)} and the request asks for {plan.max_jobs} more."
        )


def _names(definition: Definition) -> set[str]:
    return {parameter.name for parameter in definition.space} | set(definition.static)


def _image(definition: Definition) -> tuple[Any, Any]:
    algorithm = definition.request["AlgorithmSpecification"]
    return algorithm.get("TrainingImage"), algorithm.get("AlgorithmName")


def _shown(definition: Definition) -> str:
    direction = "Maximize" if definition.objective.maximize else "Minimize"
    return f"{direction} {definition.objective.metric!r}"
