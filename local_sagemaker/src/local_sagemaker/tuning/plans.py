"""The plan of a tuning job, from a CreateHyperParameterTuningJob request, with AWS's validation.

AWS's own messages are quoted as users have published them, because people search for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_sagemaker.errors import ResourceLimitExceededError, ValidationError
from local_sagemaker.patterns import number
from local_sagemaker.tuning.ranges import Categorical, Space, combinations, parse_space
from local_sagemaker.tuning.search import Strategy

MAX_JOBS = 750  # training jobs of a tuning job, an AWS quota
MAX_PARALLEL = 10  # at the same time, an AWS quota
_MAX_RESOURCE = 20_000  # Hyperband's MaxResource, API reference
# Static hyperparameters from which Hyperband takes MaxResource.
_EPOCH_NAMES = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")


@dataclass(frozen=True)
class Objective:
    metric: str
    maximize: bool


@dataclass(frozen=True)
class Definition:
    """One training job definition; `request` is the HyperParameterTrainingJobDefinition."""

    name: str | None
    objective: Objective
    space: Space
    request: Mapping[str, Any]

    @property
    def static(self) -> Mapping[str, str]:
        """The static hyperparameters, with the objective metric's name, which AWS adds."""
        given: Mapping[str, str] = self.request.get("StaticHyperParameters", {})
        return {**given, "_tuning_objective_metric": self.objective.metric}


@dataclass(frozen=True)
class ResourceRange:
    """Hyperband's resources, in reports of the objective metric."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class Plan:
    """A tuning job. `max_runtime` is in seconds from its creation; other limits are in training jobs."""

    strategy: Strategy
    definitions: tuple[Definition, ...]
    max_jobs: int
    max_parallel: int
    max_runtime: int | None
    stops_early: bool
    resources: ResourceRange | None
    target: float | None
    max_not_improving: int | None

    @property
    def maximize(self) -> bool:
        return self.definitions[0].objective.maximize


def read_plan(request: Mapping[str, Any]) -> Plan:
    """The plan of a request, or of the document of a tuning job, which holds its request.

    Raises ValidationError or ResourceLimitExceededError.
    """
    _refuse_autotune(request)
    config = request["HyperParameterTuningJobConfig"]
    strategy = Strategy(config["Strategy"])
    definitions = _definitions(request, config)
    limits = config["ResourceLimits"]
    criteria = config.get("TuningJobCompletionCriteria", {})
    _refuse_convergence(criteria)
    return Plan(
        strategy=strategy,
        definitions=definitions,
        max_jobs=_max_jobs(strategy, definitions, limits, criteria),
        max_parallel=_within("parallel training jobs", limits["MaxParallelTrainingJobs"], MAX_PARALLEL),
        max_runtime=limits.get("MaxRuntimeInSeconds"),
        stops_early=config.get("TrainingJobEarlyStoppingType", "Off") == "Auto",
        resources=_resources(config, strategy, definitions),
        target=criteria.get("TargetObjectiveMetricValue"),
        max_not_improving=criteria.get("BestObjectiveNotImproving", {}).get(
            "MaxNumberOfTrainingJobsNotImproving"
        ),
    )


def _refuse_autotune(request: Mapping[str, Any]) -> None:
    if "Autotune" in request:
        raise ValidationError(
            "Autotune is not part of the local SageMaker. Leave it out and give ParameterRanges, Strategy "
            "and ResourceLimits."
        )


def _refuse_convergence(criteria: Mapping[str, Any]) -> None:
    if criteria.get("ConvergenceDetected", {}).get("CompleteOnConvergence") == "Enabled":
        raise ValidationError(
            "ConvergenceDetected is not part of the local SageMaker, because AWS does not publish its test. "
            "Use BestObjectiveNotImproving or TargetObjectiveMetricValue."
        )


# -- training job definitions --------------------------------------------------------------------------------


def _definitions(request: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[Definition, ...]:
    one, several = request.get("TrainingJobDefinition"), request.get("TrainingJobDefinitions")
    if (one is None) == (several is None):
        raise ValidationError(
            "Give either TrainingJobDefinition or TrainingJobDefinitions, one of them and not both."
        )
    if one is not None:
        objective, ranges = config.get("HyperParameterTuningJobObjective"), config.get("ParameterRanges")
        return (_definition(one, objective, ranges, "HyperParameterTuningJobObjective", "ParameterRanges"),)
    definitions = tuple(
        _definition(
            item,
            item.get("TuningObjective"),
            item.get("HyperParameterRanges"),
            "TuningObjective",
            "HyperParameterRanges",
        )
        for item in several or ()
    )
    _check_several(definitions)
    return definitions


def _definition(
    item: Mapping[str, Any],
    objective: Mapping[str, Any] | None,
    ranges: Mapping[str, Any] | None,
    objective_member: str,
    ranges_member: str,
) -> Definition:
    if objective is None:
        raise ValidationError(
            f"{objective_member} is required: name the metric to optimise and whether to maximise it."
        )
    definition = Definition(
        name=item.get("DefinitionName"),
        objective=Objective(objective["MetricName"], objective["Type"] == "Maximize"),
        space=parse_space(ranges or {}),
        request=item,
    )
    _check_metrics(definition)
    _check_static(definition, ranges_member)
    _check_resources(item)
    return definition


def _check_metrics(definition: Definition) -> None:
    metrics = definition.request["AlgorithmSpecification"].get("MetricDefinitions", [])
    if definition.objective.metric not in {metric["Name"] for metric in metrics}:
        raise ValidationError(
            "A metric is required for this hyperparameter tuning job objective. "
            "Provide a metric in the metric definitions."
        )


def _check_static(definition: Definition, ranges_member: str) -> None:
    both = sorted({parameter.name for parameter in definition.space} & definition.static.keys())
    if both:
        raise ValidationError(
            f"The hyperparameters {both} are in StaticHyperParameters and in {ranges_member}; give each in "
            "one place."
        )


def _check_resources(item: Mapping[str, Any]) -> None:
    if ("ResourceConfig" in item) == ("HyperParameterTuningResourceConfig" in item):
        raise ValidationError(
            "Give either ResourceConfig or HyperParameterTuningResourceConfig, one of them and not both."
        )


def _check_several(definitions: tuple[Definition, ...]) -> None:
    names = [definition.name for definition in definitions]
    if None in names or len(set(names)) < len(names):
        raise ValidationError("Every member of TrainingJobDefinitions needs a DefinitionName of its own.")
    if len({definition.objective.maximize for definition in definitions}) > 1:
        raise ValidationError("All TrainingJobDefinitions must have the same TuningObjective Type.")


# -- limits --------------------------------------------------------------------------------------------------


def _max_jobs(
    strategy: Strategy,
    definitions: tuple[Definition, ...],
    limits: Mapping[str, Any],
    criteria: Mapping[str, Any],
) -> int:
    asked = limits.get("MaxNumberOfTrainingJobs")
    points = sum(combinations(definition.space) for definition in definitions)
    if strategy is Strategy.GRID:
        return _grid_jobs(definitions, asked, points)
    if asked is None:
        if not criteria and "MaxRuntimeInSeconds" not in limits:
            raise ValidationError(
                "MaxNumberOfTrainingJobs is required, unless MaxRuntimeInSeconds or "
                "TuningJobCompletionCriteria limits the tuning job."
            )
        return int(min(points, MAX_JOBS))
    if points < asked:
        raise ValidationError(
            "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter "
            f"combinations for the provided ranges [{float(points)}] must be equal or greater than the value "
            f"of MaxNumberOfJobs, [{asked}]. Provide additional ranges."
        )
    return _within("training jobs", asked, MAX_JOBS)


def _grid_jobs(definitions: tuple[Definition, ...], asked: int | None, points: float) -> int:
    for definition in definitions:
        others = [parameter.name for parameter in definition.space if not isinstance(parameter, Categorical)]
        if others:
            raise ValidationError(
                f"Grid search takes categorical hyperparameters only, and {others} have integer or "
                "continuous ranges. List their values in CategoricalParameterRanges or choose another "
                "Strategy."
            )
    if asked is not None and asked != points:
        raise ValidationError(
            f"Grid search runs every combination once: MaxNumberOfTrainingJobs [{asked}] must be left out or "
            f"be equal to the number of combinations [{int(points)}]."
        )
    return _within("training jobs", int(points), MAX_JOBS)


def _within(what: str, asked: int, limit: int) -> int:
    """`asked`, if it is within the quota. Raises ResourceLimitExceededError with AWS's message."""
    if asked > limit:
        raise ResourceLimitExceededError(
            f"The account-level service limit 'Maximum number of {what} per hyperparameter tuning job' is "
            f"{limit}, with a request for {asked}. Ask for at most {limit}."
        )
    return asked


def _resources(
    config: Mapping[str, Any], strategy: Strategy, definitions: tuple[Definition, ...]
) -> ResourceRange | None:
    hyperband = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig")
    if strategy is not Strategy.HYPERBAND:
        if hyperband is not None:
            raise ValidationError(f"HyperbandStrategyConfig needs Strategy Hyperband, not {strategy.value}.")
        return None
    if config.get("TrainingJobEarlyStoppingType", "Off") != "Off":
        raise ValidationError(
            "TrainingJobEarlyStoppingType must be Off with Strategy Hyperband, which stops training jobs by "
            "its own rule."
        )
    minimum = (hyperband or {}).get("MinResource", 1)
    maximum = (hyperband or {}).get("MaxResource") or _epochs(definitions)
    if maximum > _MAX_RESOURCE or minimum > maximum:
        raise ValidationError(
            f"HyperbandStrategyConfig: MinResource [{minimum}] must be at most MaxResource [{maximum}], and "
            f"MaxResource at most {_MAX_RESOURCE}."
        )
    return ResourceRange(minimum, maximum)


def _epochs(definitions: tuple[Definition, ...]) -> int:
    for definition in definitions:
        for name in _EPOCH_NAMES:
            if epochs := number(definition.static.get(name, "")):
                return epochs
    raise ValidationError(
        "Hyperband needs MaxResource in HyperbandStrategyConfig, or one of the static hyperparameters "
        f"{', '.join(_EPOCH_NAMES)} to take it from."
    )
