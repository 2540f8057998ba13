"""Early stopping: the median rule and Hyperband."""

from __future__ import annotations

import random

import pytest
from local_sagemaker.tuning.stopping import Hyperband, MedianRule, worse_than_median

EARLIER = [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0]]  # averages: 1, 2, 3 · 1.5, 3, 4.5 · 2, 4


@pytest.mark.parametrize(
    ("reports", "stopped"),
    [
        ([2.0], False),  # epoch 1: the median of 1, 2, 3 is 2, and equal is not worse
        ([1.9], True),
        ([0.0, 3.0], False),  # epoch 2: the median of 1.5, 3, 4.5 is 3; only the newest report counts
        ([9.0, 2.9], True),
        ([9.0, 9.0, 3.1], False),  # epoch 3: two came so far, the median of 2 and 4 is 3
        ([9.0, 9.0, 2.9], True),
        ([9.0, 9.0, 9.0, 0.0], False),  # nobody came to epoch 4
        ([], False),
        ([float("nan")], True),
    ],
)
def test_a_trial_worse_than_the_median_of_running_averages_is_stopped(
    reports: list[float], stopped: bool
) -> None:
    assert worse_than_median(reports, EARLIER, maximize=True) is stopped


def test_minimising_reverses_the_comparison() -> None:
    assert worse_than_median([2.1], EARLIER, maximize=False)
    assert not worse_than_median([2.0], EARLIER, maximize=False)


def test_without_earlier_trials_nothing_is_stopped() -> None:
    assert not worse_than_median([-9.0], [], maximize=True)


def test_the_median_rule_judges_every_epoch_once() -> None:
    rule = MedianRule(maximize=True)
    assert not rule.follow(1, [])
    assert not rule.follow(1, [5.0])
    rule.finished(1, [5.0, 6.0])
    assert not rule.follow(2, [])
    assert rule.follow(2, [4.0, 9.0])  # both epochs came between two polls; the first was worse
    assert not rule.follow(2, [4.0, 9.0])


def test_after_a_restart_the_median_rule_starts_with_the_newest_report() -> None:
    rule = MedianRule(maximize=True)
    rule.finished(1, [5.0, 6.0])
    assert not rule.follow(2, [4.0, 9.0])


def curve(quality: float, epochs: int) -> list[float]:
    """An accuracy that rises to `quality`."""
    return [quality * epoch / (epoch + 2) for epoch in range(1, epochs + 1)]


def run_hyperband(qualities: list[float], parallel: int = 1, min_resource: int = 1) -> list[int]:
    """How many of 27 epochs each trial got, `parallel` of them running epoch by epoch beside each other."""
    rule = Hyperband("job", maximize=True, min_resource=min_resource, max_resource=27)
    epochs = [0] * len(qualities)
    for first in range(0, len(qualities), parallel):
        running = list(range(first, min(first + parallel, len(qualities))))
        for epoch in range(1, 28):
            for index in list(running):
                epochs[index] = epoch
                if rule.follow(index + 1, curve(qualities[index], epoch)):
                    running.remove(index)
    return epochs


@pytest.mark.parametrize("parallel", [1, 4])
def test_hyperband_stops_bad_trials_and_keeps_good_ones(parallel: int) -> None:
    draw = random.Random(11)
    qualities = [draw.random() for _ in range(60)]
    epochs = run_hyperband(qualities, parallel)
    assert sum(epochs) < 0.6 * 27 * len(epochs)
    ranked = sorted(range(60), key=lambda index: qualities[index])
    assert sum(epochs[index] for index in ranked[30:]) > 2 * sum(epochs[index] for index in ranked[:30])
    assert epochs[ranked[-1]] == 27


def test_hyperband_stops_no_trial_before_min_resource() -> None:
    draw = random.Random(12)
    epochs = run_hyperband([draw.random() for _ in range(40)], min_resource=9)
    assert min(epochs) >= 9
    assert 9 in epochs


def test_hyperband_ends_a_trial_beyond_max_resource_and_one_that_diverged() -> None:
    rule = Hyperband("job", maximize=True, min_resource=1, max_resource=3)
    assert not rule.follow(1, [0.1, 0.2, 0.3, 0.3])
    assert rule.follow(1, [0.1, 0.2, 0.3, 0.3, 0.4])
    assert rule.follow(2, [float("nan")])


def test_hyperband_decides_the_same_after_a_restart() -> None:
    draw = random.Random(13)
    qualities = [draw.random() for _ in range(40)]
    epochs = run_hyperband(qualities[:39])
    fresh = Hyperband("job", maximize=True, min_resource=1, max_resource=27)
    for number, count in enumerate(epochs, 1):
        fresh.finished(number, curve(qualities[number - 1], count))
    last = curve(qualities[39], run_hyperband(qualities)[39])
    assert not any(fresh.follow(40, last[:epoch]) for epoch in range(1, len(last)))
    assert fresh.follow(40, last) is (len(last) < 27)
