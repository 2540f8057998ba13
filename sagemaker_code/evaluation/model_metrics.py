"""All metrics of one candidate on the test images."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation import metrics
from evaluation.candidates import Candidate
from evaluation.latency import Latency
from evaluation.metrics import Calibration, ClassCounts, Floats, Ints

TOP_K = 5


@dataclass(frozen=True)
class ModelMetrics:
    """A candidate's predictions and metrics, over the union of all candidates' classes.

    `labels` has shape (images,), `probabilities` (images, classes).
    """

    candidate: Candidate
    labels: Ints
    probabilities: Floats
    latency: Latency | None

    @cached_property
    def predictions(self) -> Ints:
        """The most probable class of each image: shape (images,)."""
        classes: Ints = self.probabilities.argmax(1)
        return classes

    @cached_property
    def confidences(self) -> Floats:
        """The probability of the most probable class of each image: shape (images,)."""
        highest: Floats = self.probabilities.max(1)
        return highest

    @property
    def of_labels(self) -> Floats:
        """The probability of each image's own class: shape (images,)."""
        values: Floats = self.probabilities[np.arange(len(self.labels)), self.labels]
        return values

    @cached_property
    def confusion(self) -> Ints:
        """Images of each label (rows) by predicted class (columns): shape (classes, classes)."""
        return metrics.confusion_matrix(self.labels, self.predictions, self.probabilities.shape[1])

    @cached_property
    def counts(self) -> ClassCounts:
        """Correct predictions, predictions and images by class."""
        return metrics.class_counts(self.confusion)

    @cached_property
    def calibration(self) -> Calibration:
        """Confidence and accuracy in bins."""
        return metrics.calibration(self.labels, self.probabilities)

    @property
    def top_k_accuracy(self) -> float:
        """Part of the images whose class is among the TOP_K most probable."""
        return metrics.top_k_accuracy(self.labels, self.probabilities, TOP_K)

    @property
    def negative_log_likelihood(self) -> float:
        """In nats per image."""
        return metrics.negative_log_likelihood(self.labels, self.probabilities)
