"""The request of the tuning job: search space, limits, and what the search takes over from the last one.

Import inside a task only: the SageMaker SDK takes seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retraining.aws.responses import contains, or_none
from retraining.config.params import RunSettings
from retraining.config.sections import Categorical, Continuous, Integer
from retraining.errors import PlanError
from retraining.planning.common import (
    METRIC_DEFINITIONS,
    TOOLKIT_PREFIX,
    Request,
    Run,
    algorithm,
    as_strings,
    hyperparameters,
    machine,
)

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient

log = logging.getLogger(__name__)

_ENDED = {"Completed", "Stopped", "Failed"}
_MOST_TRIALS = 750  # of a tuning job and its parents together


def tuning_request(run: Run) -> Request:
    """CreateHyperParameterTuningJob's request.

    Raises PlanError for a search space that leaves nothing to search.
    """
    tuning = run.pipeline.tuning
    ranges = _search_space(run)
    searched = {r["Name"] for group in ranges.values() for r in group}
    static = {name: value for name, value in hyperparameters(run).items() if name not in searched}
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
            "StaticHyperParameters": as_strings(run, static),
            "AlgorithmSpecification": algorithm(run),
            "RoleArn": run.role,
            "InputDataConfig": run.channels,
            "OutputDataConfig": {"S3OutputPath": f"{run.output}/tuning"},
            **machine(run),
        },
        "Tags": run.tags,
    }


def warm_start(
    request: Request,
    run: Run,
    search: Mapping[str, Any] | None,
    current: Mapping[str, Any],
    sagemaker: SageMakerClient,
) -> Request:
    """The request with the last search as its parent, where SageMaker takes it; else as it is.

    `search` is what the last run remembers of its search, `current` what this run would: `model`, `data`,
    `code` and `weights`. Where these and the parent's request are the same, the parent's trials count as this
    search's own (IdenticalDataAndAlgorithm); else they say where to begin (TransferLearning). SageMaker wants
    the same objective and the same set of hyperparameters, tuned or not, as in the parent.
    """
    if search is None or not run.pipeline.tuning.warm_start:
        return request
    parent: Mapping[str, Any] | None = or_none(
        lambda: sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=search["job"])
    )
    obstacle = "it searched for another model" if search["model"] != current["model"] else None
    obstacle = obstacle or _obstacle(request, parent)
    if parent is None or obstacle:
        log.info("The search starts cold, without %s: %s", search["job"], obstacle)
        return request
    same = all(search.get(part) == current[part] for part in ("data", "code", "weights"))
    kind = "IdenticalDataAndAlgorithm" if same and _is_like(request, parent) else "TransferLearning"
    log.info("The search starts warm, from %s (%s)", search["job"], kind)
    parents = [{"HyperParameterTuningJobName": search["job"]}]
    return {
        **request,
        "WarmStartConfig": {"ParentHyperParameterTuningJobs": parents, "WarmStartType": kind},
    }


def _obstacle(request: Request, parent: Mapping[str, Any] | None) -> str | None:
    """Why SageMaker would refuse a tuning job as the parent of a request, or None."""
    if parent is None:
        return "it does not exist any more"
    if parent["HyperParameterTuningJobStatus"] not in _ENDED:
        return f"it is {parent['HyperParameterTuningJobStatus']}"
    old_config, config = parent["HyperParameterTuningJobConfig"], request["HyperParameterTuningJobConfig"]
    if old_config["HyperParameterTuningJobObjective"] != config["HyperParameterTuningJobObjective"]:
        return "it had another objective"
    trials = sum(parent["TrainingJobStatusCounters"].values())
    wanted = config["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    if trials + wanted > _MOST_TRIALS:
        return f"its {trials} trials and {wanted} more would exceed SageMaker's limit of {_MOST_TRIALS}"
    old, new = _names(parent), _names(request)
    return f"other hyperparameters than its: {', '.join(sorted(old ^ new))}" if old != new else None


def _is_like(request: Request, parent: Mapping[str, Any]) -> bool:
    """Whether a parent's objectives can be compared with a request's: its trials could be the request's."""
    old, new = parent["TrainingJobDefinition"], request["TrainingJobDefinition"]
    images = [document["AlgorithmSpecification"].get("TrainingImage") for document in (old, new)]
    return (
        images[0] == images[1]
        and contains(old["InputDataConfig"], new["InputDataConfig"])
        and contains(_ranges(parent), _ranges(request))
        and _fixed(parent) == _fixed(request)
    )


def _names(document: Mapping[str, Any]) -> set[str]:
    """The hyperparameters of a tuning job, searched or fixed. SageMaker's own begin with an underscore."""
    searched = {r["Name"] for group in _ranges(document).values() for r in group}
    fixed = document["TrainingJobDefinition"]["StaticHyperParameters"].keys()
    return searched | {name for name in fixed if not name.startswith("_")}


def _ranges(document: Mapping[str, Any]) -> dict[str, Any]:
    """A tuning job's ParameterRanges, without the kinds of range that it has none of."""
    ranges = document["HyperParameterTuningJobConfig"]["ParameterRanges"]
    return {kind: group for kind, group in ranges.items() if group}


def _fixed(document: Mapping[str, Any]) -> dict[str, str]:
    """The values that the script gets in every trial, without the toolkit's and SageMaker's own."""
    static = document["TrainingJobDefinition"]["StaticHyperParameters"]
    return {name: value for name, value in static.items() if not name.startswith(("_", TOOLKIT_PREFIX))}


def _search_space(run: Run) -> dict[str, list[Request]]:
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
