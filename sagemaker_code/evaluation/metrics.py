"""Metrics of a classifier, from its counts by class and its probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CALIBRATION_BINS = 15
"""Equal widths of confidence, as in Guo et al. 2017, section 2."""
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)
"""Lower limit of probabilities in the log-likelihood, as in scikit-learn's log_loss for float32. Without it,
a class that a model does not know would make the mean infinite."""


@dataclass(frozen=True)
class ClassCounts:
    """Images by class, each of shape (..., classes); leading axes are resamples of the test set.

    `right` counts correct predictions, `predicted` all predictions, `support` labels.
    """

    right: Floats
    predicted: Floats
    support: Floats

    @property
    def accuracy(self) -> Floats:
        """Part of the images whose most probable class is their label: shape (...)."""
        return _ratio(self.right.sum(-1), self.support.sum(-1))

    @property
    def recall(self) -> Floats:
        """NaN for a class without images: shape (..., classes)."""
        return _ratio(self.right, self.support)

    @property
    def precision(self) -> Floats:
        """NaN for a class that was never predicted: shape (..., classes)."""
        return _ratio(self.right, self.predicted)

    def f_score(self, beta: float = 1.0) -> Floats:
        """F-measure; recall weighs `beta` times as much (van Rijsbergen 1979): shape (..., classes)."""
        return _ratio((1 + beta**2) * self.right, beta**2 * self.support + self.predicted)

    @property
    def macro_f1(self) -> Floats:
        """Mean F1 of the classes that have images: shape (...)."""
        present = self.support > 0
        return _ratio(np.where(present, self.f_score(), 0.0).sum(-1), present.sum(-1).astype(np.float64))

    def weighted(self, by_class: Floats) -> Floats:
        """Mean over classes, weighted by their images; undefined values count as 0: shape (...)."""
        return _ratio((np.nan_to_num(by_class) * self.support).sum(-1), self.support.sum(-1))


def class_counts(confusion: Ints) -> ClassCounts:
    """Counts from a confusion matrix of shape (..., classes, classes), rows by label."""
    matrix = confusion.astype(np.float64)
    return ClassCounts(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-2), matrix.sum(-1))


def confusion_matrix(labels: Ints, predictions: Ints, class_count: int) -> Ints:
    """Images of each label (rows) by predicted class (columns): shape (classes, classes)."""
    pairs = labels * class_count + predictions
    return np.bincount(pairs, minlength=class_count**2).reshape(class_count, class_count)


def top_k_accuracy(labels: Ints, probabilities: Floats, k: int) -> float:
    """Part of the images whose label is among the `k` most probable classes and has a probability above 0."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    known = probabilities[np.arange(len(labels)), labels] > 0
    return float(((best == labels[:, None]).any(1) & known).mean())


def negative_log_likelihood(labels: Ints, probabilities: Floats) -> float:
    """Mean over the images of -ln p(label), in nats."""
    of_labels = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(of_labels.clip(SMALLEST_PROBABILITY, 1.0)).mean())


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy in bins of equal width; NaN in empty bins."""

    edges: Floats
    images: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean |accuracy - confidence|, weighted by the images in each bin."""
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.images).sum() / self.images.sum())


def calibration(labels: Ints, probabilities: Floats, bins: int = CALIBRATION_BINS) -> Calibration:
    """Bins (low, high] of the most probable class's probability: Guo et al. 2017, "On Calibration of Modern
    Neural Networks", equations 2 to 5; the measure is from Naeini et al. 2015.
    """
    edges: Floats = np.linspace(0.0, 1.0, bins + 1, dtype=np.float64)
    confidences = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    index = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    images = np.bincount(index, minlength=bins)
    sums = images.astype(np.float64)
    return Calibration(
        edges,
        images,
        _ratio(np.bincount(index, confidences, bins), sums),
        _ratio(np.bincount(index, right, bins), sums),
    )


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """Quotient with NaN where `whole` is 0."""
    undefined = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=np.asarray(whole) > 0))
