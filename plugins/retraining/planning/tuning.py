"""The tuning job: its request, and how it starts from the last run's search."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from retraining.aws.responses import contains, or_none
from retraining.config.params import RunSettings
from retraining.config.sections import Categorical, Continuous, Integer, SearchRange
from retraining.errors import PlanError
from retraining.planning.common import (
    METRIC_DEFINITIONS,
    TOOLKIT_PREFIX,
    PlannedRun,
    as_strings,
    channels,
    hyperparameters,
    resources,
    time_limits,
)
from retraining.planning.images import training_image
from retraining.runs.results import Fingerprint, ModelSettings, Search

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker.type_defs import (
        CategoricalParameterRangeTypeDef,
        ContinuousParameterRangeTypeDef,
        CreateHyperParameterTuningJobRequestTypeDef,
        HyperParameterTuningJobConfigTypeDef,
        IntegerParameterRangeTypeDef,
        ParameterRangesTypeDef,
    )

log = logging.getLogger(__name__)

_ENDED = {"Completed", "Stopped", "Failed"}
_MOST_TRIALS = 750  # of a tuning job and its parents together
_DECIDES_RESULTS: tuple[Literal["data", "code", "weights"], ...] = ("data", "code", "weights")


def tuning_request(run: PlannedRun) -> CreateHyperParameterTuningJobRequestTypeDef:
    """CreateHyperParameterTuningJob's request.

    Raises PlanError for a search space that leaves nothing to search.
    """
    tuning = run.pipeline.tuning
    searched = _search_space(run)
    static = {name: value for name, value in hyperparameters(run).items() if name not in searched}
    if run.pipeline.debugger == "off":
        static["debugger"] = "off"  # so that trials compute as the training does, which then has no hook
    config: HyperParameterTuningJobConfigTypeDef = {
        "Strategy": tuning.strategy,
        "HyperParameterTuningJobObjective": {
            "Type": tuning.objective.type,
            "MetricName": tuning.objective.metric,
        },
        "ResourceLimits": {
            "MaxNumberOfTrainingJobs": run.settings.max_jobs,
            "MaxParallelTrainingJobs": min(run.settings.max_parallel_jobs, run.settings.max_jobs),
            "MaxRuntimeInSeconds": tuning.max_runtime_seconds,
        },
        "ParameterRanges": _parameter_ranges(searched),
        "TrainingJobEarlyStoppingType": "Auto" if tuning.early_stopping else "Off",
    }
    if tuning.random_seed is not None:
        config["RandomSeed"] = tuning.random_seed
    return {
        "HyperParameterTuningJobName": run.name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {
            "StaticHyperParameters": as_strings(run, static),
            "AlgorithmSpecification": {
                "TrainingImage": training_image(run, run.settings.instance_type),
                "TrainingInputMode": "File",
                "MetricDefinitions": METRIC_DEFINITIONS,
            },
            "RoleArn": run.role,
            "InputDataConfig": channels(run),
            "OutputDataConfig": {"S3OutputPath": f"{run.output}/tuning"},
            "ResourceConfig": resources(run),
            "StoppingCondition": time_limits(run),
            "EnableManagedSpotTraining": run.settings.spot,
        },
        "Tags": run.tags,
    }


def warm_start(
    request: CreateHyperParameterTuningJobRequestTypeDef,
    search: Search,
    model: ModelSettings,
    fingerprint: Fingerprint,
    sagemaker: SageMakerClient,
) -> CreateHyperParameterTuningJobRequestTypeDef:
    """The request with the last search as its parent, where SageMaker accepts it; else as it is.

    `search` is what the last run remembers of its search; `model` and `fingerprint` are this run's. Where
    they and the parent's request are the same, the parent's trials count as this search's own
    (IdenticalDataAndAlgorithm); else they only say where to begin (TransferLearning). SageMaker wants the
    same objective and the same set of hyperparameters, tuned or not, as in the parent.
    """
    parent: Mapping[str, Any] | None = or_none(
        lambda: sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=search["job"])
    )
    obstacle = "it searched for another model" if search["model"] != model else None
    obstacle = obstacle or _obstacle(request, parent)
    if parent is None or obstacle:
        log.info("The search starts cold, without %s: %s", search["job"], obstacle)
        return request
    same = all(search[part] == fingerprint[part] for part in _DECIDES_RESULTS)
    identical = same and _is_like(request, parent)
    log.info(
        "The search starts warm, from %s (%s)",
        search["job"],
        "IdenticalDataAndAlgorithm" if identical else "TransferLearning",
    )
    return {
        **request,
        "WarmStartConfig": {
            "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": search["job"]}],
            "WarmStartType": "IdenticalDataAndAlgorithm" if identical else "TransferLearning",
        },
    }


def _obstacle(request: Mapping[str, Any], parent: Mapping[str, Any] | None) -> str | None:
    """Why SageMaker would refuse `parent` as the parent of a tuning job, or None."""
    if parent is None:
        return "it no longer exists"
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
    return f"only one of them has {', '.join(sorted(old ^ new))}" if old != new else None


def _is_like(request: Mapping[str, Any], parent: Mapping[str, Any]) -> bool:
    """Whether the parent's trials could as well be the request's, so that their objectives compare."""
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


def _search_space(run: PlannedRun) -> dict[str, SearchRange]:
    """What is searched, by hyperparameter; the form's ends of the epochs replace the file's."""
    known = {metric["Name"] for metric in METRIC_DEFINITIONS}
    if run.pipeline.tuning.objective.metric not in known:
        raise PlanError(
            f"Pipeline {run.pipeline.name}: the training script has no metric "
            f"{run.pipeline.tuning.objective.metric!r}; choose one of {', '.join(sorted(known))}."
        )
    wanted = dict(run.pipeline.tuning.search_space)
    if "epochs" in wanted:
        limited = _limit_epochs(wanted.pop("epochs"), run.settings)
        wanted |= {"epochs": limited} if limited else {}
    if not wanted:
        raise PlanError(
            "Nothing is left to search for: widen the range of epochs, or start the run with skip_tuning."
        )
    return wanted


def _parameter_ranges(searched: Mapping[str, SearchRange]) -> ParameterRangesTypeDef:
    continuous: list[ContinuousParameterRangeTypeDef] = []
    integer: list[IntegerParameterRangeTypeDef] = []
    categorical: list[CategoricalParameterRangeTypeDef] = []
    for name, wanted in searched.items():
        match wanted:
            case Categorical():
                categorical.append({"Name": name, "Values": [str(value) for value in wanted.values]})
            case Continuous():
                continuous.append(_interval(name, wanted))
            case Integer():
                integer.append(_interval(name, wanted))
    ranges: ParameterRangesTypeDef = {}
    if continuous:
        ranges["ContinuousParameterRanges"] = continuous
    if integer:
        ranges["IntegerParameterRanges"] = integer
    if categorical:
        ranges["CategoricalParameterRanges"] = categorical
    return ranges


def _interval(name: str, ends: Continuous | Integer) -> ContinuousParameterRangeTypeDef:
    """A range of numbers; SageMaker's two types of them look the same."""
    return {"Name": name, "MinValue": str(ends.min), "MaxValue": str(ends.max), "ScalingType": ends.scaling}


def _limit_epochs(wanted: SearchRange, settings: RunSettings) -> SearchRange | None:
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
