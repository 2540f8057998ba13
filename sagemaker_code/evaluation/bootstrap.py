"""How certain a metric of sampled test images is: the paired bootstrap and McNemar's test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics import ClassCounts, Floats, Ints

_MEMORY = 64 * 2**20
"""Bytes for the weights of the resamples that are drawn at once."""


@dataclass(frozen=True)
class Resampling:
    """How the test set is resampled."""

    samples: int
    confidence: float
    seed: int


@dataclass(frozen=True)
class Interval:
    """Bounds of a metric at the resampling's confidence, all of the metric's shape.

    `low` and `high` are two-sided; `lower_bound` and `upper_bound` are one-sided each.
    """

    low: Floats
    high: Floats
    lower_bound: Floats
    upper_bound: Floats


def resample(
    labels: Ints, predictions: Sequence[Ints], class_count: int, resampling: Resampling
) -> list[ClassCounts]:
    """Counts by class of each model on the same resamples, each of shape (samples, classes).

    Images are drawn with replacement, each with the predictions of all models: the nonparametric bootstrap
    (Efron and Tibshirani 1993, chapter 6), paired as in Koehn 2004. Images with equal label and predictions
    are interchangeable, so their numbers in a resample are drawn together from a multinomial distribution,
    and no image is copied.
    """
    kinds, sizes = np.unique(np.stack([labels, *predictions]), axis=1, return_counts=True)
    label, predicted = kinds[0], kinds[1:]
    supporting = _indicator(label, class_count)
    predicting = [_indicator(classes, class_count) for classes in predicted]
    correct = [supporting * (classes == label)[:, None] for classes in predicted]

    random = np.random.default_rng(resampling.seed)
    batch = max(1, _MEMORY // (8 * len(sizes)))
    drawn: list[list[Floats]] = []
    for start in range(0, resampling.samples, batch):
        count = min(batch, resampling.samples - start)
        weights = random.multinomial(len(labels), sizes / len(labels), size=count).astype(np.float32)
        drawn.append(
            [(weights @ matrix).astype(np.float64) for matrix in (supporting, *predicting, *correct)]
        )
    support, *rest = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    models = len(predictions)
    return [ClassCounts(rest[models + model], rest[model], support) for model in range(models)]


def _indicator(classes: Ints, class_count: int) -> NDArray[np.float32]:
    """One row per kind of image, 1 in the column of its class; sums are exact up to 2^24."""
    rows: NDArray[np.float32] = np.eye(class_count, dtype=np.float32)[classes]
    return rows


def interval(resamples: Floats, confidence: float) -> Interval:
    """Percentile intervals over the first axis (Efron and Tibshirani 1993, chapter 13).

    Resamples in which the metric is undefined (NaN) are left out; if all are, so are the bounds. With few
    images the intervals are too narrow: if the models agree on all of them, the width is 0.
    """
    outside = 1 - confidence
    levels = [outside / 2, 1 - outside / 2, outside, 1 - outside]
    defined = ~np.isnan(resamples).all(axis=0)
    bounds = np.full((len(levels), *defined.shape), np.nan)
    bounds[:, defined] = np.nanquantile(resamples[:, defined], levels, axis=0)
    return Interval(*bounds)


def mcnemar(first_only: int, second_only: int) -> float:
    """Two-sided p-value of the exact test that both models are right equally often (McNemar 1947).

    The arguments are the images that only one model classifies correctly. Under the hypothesis each of them
    is equally likely to be the first or the second model's, so the smaller number is binomial.
    """
    trials, smaller = first_only + second_only, min(first_only, second_only)
    ways = total = 1
    for successes in range(smaller):
        ways = ways * (trials - successes) // (successes + 1)
        total += ways
    p_value: float = 2 * total / 2**trials
    return min(1.0, p_value)
