"""The optimiser: ranges, proposals, and whether the search beats random."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest
from local_sagemaker.errors import ApiError
from local_sagemaker.tuning.ranges import OutsideRangeError, Scaling, combinations, parse_space
from local_sagemaker.tuning.search import SpaceExhaustedError, Strategy, Trial, Values, propose

SPACE = parse_space(
    {
        "ContinuousParameterRanges": [
            {"Name": "lr", "MinValue": "0.0001", "MaxValue": "1", "ScalingType": "Logarithmic"},
            {"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.99", "ScalingType": "ReverseLogarithmic"},
        ],
        "IntegerParameterRanges": [{"Name": "epochs", "MinValue": "1", "MaxValue": "20"}],
        "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["16", "32", "64"]}],
    }
)
FINITE = parse_space(
    {
        "IntegerParameterRanges": [{"Name": "layers", "MinValue": "1", "MaxValue": "4"}],
        "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["sgd", "adam", "lion"]}],
    }
)


def smooth(values: Values) -> float:
    """A loss with its minimum 0 at lr 0.01, momentum 0.9, 12 epochs, batch size 32."""
    return (
        (math.log10(float(values["lr"])) + 2) ** 2
        + 20 * (float(values["momentum"]) - 0.9) ** 2
        + 0.005 * (int(values["epochs"]) - 12) ** 2
        + {"16": 0.3, "32": 0.0, "64": 0.15}[values["batch-size"]]
    )


def search(strategy: Strategy, seed: int, jobs: int, parallel: int = 2, **options: Any) -> list[Trial]:
    """Trials of a search in which `parallel` at a time are running when the next is proposed."""
    done: list[Trial] = []
    while len(done) < jobs:
        running: list[Trial] = []
        for _ in range(min(parallel, jobs - len(done))):
            number = len(done) + len(running) + 1
            values = propose(
                SPACE, strategy, maximize=False, seed=seed, number=number, trials=[*done, *running], **options
            )
            running.append(Trial(values, running=True))
        done += [Trial(trial.values, smooth(dict(trial.values))) for trial in running]
    return done


def best(trials: list[Trial]) -> float:
    return min(trial.objective for trial in trials if trial.objective is not None)


@pytest.mark.parametrize(("jobs", "parallel", "at_most"), [(20, 2, 0.85), (40, 2, 0.6), (40, 10, 0.8)])
def test_bayesian_beats_random(jobs: int, parallel: int, at_most: float) -> None:
    seeds = range(12)
    bayesian = [best(search(Strategy.BAYESIAN, seed, jobs, parallel)) for seed in seeds]
    at_random = [best(search(Strategy.RANDOM, seed, jobs, parallel)) for seed in seeds]
    assert fmean(bayesian) < at_most * fmean(at_random)


def test_bayesian_maximises_too() -> None:
    trials: list[Trial] = []
    for number in range(1, 31):
        values = propose(SPACE, Strategy.BAYESIAN, maximize=True, seed=3, number=number, trials=trials)
        trials.append(Trial(values, -smooth(values)))
    early = fmean(trial.objective or 0 for trial in trials[:10])
    late = fmean(trial.objective or 0 for trial in trials[20:])
    assert late > early


def test_a_warm_start_needs_no_random_trials() -> None:
    parents = search(Strategy.BAYESIAN, 100, 30)
    warm = [best(search(Strategy.BAYESIAN, seed, 5, inherited=parents)) for seed in range(8)]
    cold = [best(search(Strategy.BAYESIAN, seed, 5)) for seed in range(8)]
    assert fmean(warm) < 0.5 * fmean(cold)


@pytest.mark.parametrize("strategy", [Strategy.BAYESIAN, Strategy.RANDOM, Strategy.HYPERBAND])
def test_a_seed_gives_the_same_search_and_another_seed_another(strategy: Strategy) -> None:
    first = [trial.values for trial in search(strategy, 7, 12)]
    assert first == [trial.values for trial in search(strategy, 7, 12)]
    assert first != [trial.values for trial in search(strategy, 8, 12)]


def test_values_are_text_within_the_ranges() -> None:
    for trial in search(Strategy.RANDOM, 1, 60):
        assert 0.0001 <= float(trial.values["lr"]) <= 1
        assert 0.5 <= float(trial.values["momentum"]) <= 0.99
        assert trial.values["epochs"] in {str(epochs) for epochs in range(1, 21)}
        assert trial.values["batch-size"] in {"16", "32", "64"}


def test_scaling_spreads_the_draws() -> None:
    """Logarithmic: half the draws below the geometric mean. Reverse: half above 1 - sqrt(0.5 * 0.01)."""
    trials = search(Strategy.RANDOM, 5, 300, parallel=50)
    below = fmean(float(trial.values["lr"]) < 0.01 for trial in trials)
    above = fmean(float(trial.values["momentum"]) > 1 - math.sqrt(0.5 * 0.01) for trial in trials)
    assert below == pytest.approx(0.5, abs=0.1)
    assert above == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("strategy", [Strategy.BAYESIAN, Strategy.RANDOM, Strategy.GRID])
def test_a_finite_space_is_searched_without_repeats_until_it_is_exhausted(strategy: Strategy) -> None:
    trials: list[Trial] = []
    for number in range(1, 13):
        values = propose(FINITE, strategy, maximize=False, seed=2, number=number, trials=trials)
        trials.append(Trial(values, float(number)))
    assert len({tuple(sorted(trial.values.items())) for trial in trials}) == combinations(FINITE) == 12
    with pytest.raises(SpaceExhaustedError, match="12 combinations"):
        propose(FINITE, strategy, maximize=False, seed=2, number=13, trials=trials)


def test_the_search_copes_with_failed_and_stopped_trials() -> None:
    trials = [
        Trial({"lr": "0.01", "momentum": "0.9", "epochs": "12", "batch-size": "32"}, 0.0),
        *(
            Trial(
                {"lr": f"0.{number}", "momentum": "0.6", "epochs": "3", "batch-size": "16"},
                9.0,
                stopped_after=2,
            )
            for number in range(1, 9)
        ),
        Trial({"lr": "0.02", "momentum": "0.9", "epochs": "12", "batch-size": "64"}),
        Trial({"lr": "7", "momentum": "0.9", "epochs": "12", "batch-size": "64"}, -100.0),
        Trial({"lr": "0.1"}, -100.0),
    ]
    proposed = [
        propose(SPACE, Strategy.BAYESIAN, maximize=False, seed=seed, number=20, trials=trials)
        for seed in range(20)
    ]
    near = fmean(float(values["lr"]) < 0.1 for values in proposed)
    assert near > 0.7


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [("0.01", "0.1", Scaling.LINEAR), ("0.5", "0.9", Scaling.LINEAR), ("1e-4", "0.1", Scaling.LOGARITHMIC)],
)
def test_auto_scaling_is_logarithmic_beyond_one_order_of_magnitude(
    low: str, high: str, expected: Scaling
) -> None:
    space = parse_space({"ContinuousParameterRanges": [{"Name": "x", "MinValue": low, "MaxValue": high}]})
    assert space[0].scaling is expected  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["0.49", "1", "nan", "fast"])
def test_a_value_outside_a_range_is_an_error(text: str) -> None:
    with pytest.raises(OutsideRangeError, match="momentum"):
        SPACE[1].from_text(text)


def continuous(low: str, high: str, scaling: str = "Auto") -> dict[str, Any]:
    item = {"Name": "x", "MinValue": low, "MaxValue": high, "ScalingType": scaling}
    return {"ContinuousParameterRanges": [item]}


def integer(low: str, high: str, scaling: str = "Auto") -> dict[str, Any]:
    return {"IntegerParameterRanges": continuous(low, high, scaling)["ContinuousParameterRanges"]}


@pytest.mark.parametrize(
    ("ranges", "code", "message"),
    [
        (continuous("1", "1"), "ValidationException", "must be less than MaxValue"),
        (continuous("2", "1"), "ValidationException", "must be less than MaxValue"),
        (continuous("fast", "1"), "ValidationException", "'fast' is not a number"),
        (continuous("0", "inf"), "ValidationException", "'inf' is not finite"),
        (integer("1", "2.5"), "ValidationException", "'2.5' is not an integer"),
        (continuous("0", "1", "Logarithmic"), "ValidationException", "greater than 0"),
        (integer("0", "8", "Logarithmic"), "ValidationException", "greater than 0"),
        (continuous("0.5", "1", "ReverseLogarithmic"), "ValidationException", "0 <= x < 1.0"),
        (integer("1", "8", "ReverseLogarithmic"), "ValidationException", "continuous ranges only"),
        (
            {"CategoricalParameterRanges": [{"Name": "x", "Values": ["a", "a"]}]},
            "ValidationException",
            "more than once",
        ),
        ({**continuous("0", "1"), **integer("1", "2")}, "ValidationException", "one range"),
        ({}, "ValidationException", "at least one"),
        ({"AutoParameters": [{"Name": "x", "ValueHint": "1"}]}, "ValidationException", "Autotune"),
        (
            {"CategoricalParameterRanges": [{"Name": f"x{index}", "Values": ["a"]} for index in range(31)]},
            "ResourceLimitExceeded",
            "31",
        ),
    ],
)
def test_ranges_that_aws_refuses_are_refused(ranges: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse_space(ranges)
    assert caught.value.code == code
