"""The bootstrap covers the truth as often as it says, and McNemar's test is exact."""

import numpy as np
import pytest
from evaluation.bootstrap import Resampling, interval, mcnemar, resample
from evaluation.metrics import Ints, class_counts, confusion_matrix

CLASSES = 4


def draw(
    random: np.random.Generator, images: int, accuracies: tuple[float, float]
) -> tuple[Ints, list[Ints]]:
    """Labels and two models' predictions; both models find the same images easy."""
    labels = random.integers(0, CLASSES, images)
    ease = random.random(images)
    wrong = (labels + random.integers(1, CLASSES, images)) % CLASSES
    return labels, [np.where(ease < accuracy, labels, wrong) for accuracy in accuracies]


def test_intervals_of_a_difference_cover_it_as_often_as_stated() -> None:
    random = np.random.default_rng(1)
    truth, experiments = 0.08, 300
    covered = below = 0
    for experiment in range(experiments):
        labels, predictions = draw(random, 300, (0.78, 0.70))
        drawn = resample(labels, predictions, CLASSES, Resampling(400, 0.9, experiment))
        bounds = interval(drawn[0].accuracy - drawn[1].accuracy, 0.9)
        covered += bool(bounds.low <= truth <= bounds.high)
        below += bool(bounds.lower_bound <= truth)
    assert covered / experiments == pytest.approx(0.9, abs=0.05)
    assert below / experiments == pytest.approx(0.9, abs=0.05)


def test_resamples_are_those_of_drawing_images() -> None:
    """The same spread of every metric as when images are copied one by one."""
    random = np.random.default_rng(2)
    labels, predictions = draw(random, 120, (0.8, 0.6))
    drawn = resample(labels, predictions, CLASSES, Resampling(4000, 0.95, 0))
    rows = random.integers(0, len(labels), (4000, len(labels)))
    copied = [
        class_counts(np.stack([confusion_matrix(labels[row], predicted[row], CLASSES) for row in rows]))
        for predicted in predictions
    ]
    for given, expected in zip(drawn, copied, strict=True):
        assert (given.support.sum(1) == 120).all()
        assert (given.predicted.sum(1) == 120).all()
        for name in ("accuracy", "macro_f1"):
            assert getattr(given, name).mean() == pytest.approx(getattr(expected, name).mean(), abs=0.003)
            assert getattr(given, name).std() == pytest.approx(getattr(expected, name).std(), rel=0.06)
        assert given.recall.std(0) == pytest.approx(expected.recall.std(0), rel=0.08)
    difference = drawn[0].macro_f1 - drawn[1].macro_f1
    assert difference.std() == pytest.approx((copied[0].macro_f1 - copied[1].macro_f1).std(), rel=0.06)


def test_a_seed_gives_the_same_resamples() -> None:
    labels, predictions = draw(np.random.default_rng(3), 50, (0.8, 0.6))
    first, again, other = (
        resample(labels, predictions, CLASSES, Resampling(100, 0.95, seed))[0].right for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_undefined_resamples_do_not_count() -> None:
    values = np.array([[0.1, np.nan], [np.nan, np.nan], [0.3, np.nan]])
    bounds = interval(values, 0.5)
    assert bounds.low[0] == pytest.approx(0.15)
    assert bounds.high[0] == pytest.approx(0.25)
    assert np.isnan(bounds.low[1])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1.0), (3, 3, 1.0), (1, 5, 14 / 64), (5, 1, 14 / 64), (0, 10, 2 / 1024)],
)
def test_mcnemar(first: int, second: int, expected: float) -> None:
    assert mcnemar(first, second) == pytest.approx(expected)


def test_mcnemar_of_many_images() -> None:
    """The value is that of scipy.stats.binomtest(1450, 3000)."""
    assert mcnemar(1450, 1550) == pytest.approx(0.07066904481175819, rel=1e-9)
