"""Metrics against values computed by hand."""

import math

import numpy as np
import pytest
from evaluation.metrics import (
    calibration,
    class_counts,
    confusion_matrix,
    negative_log_likelihood,
    top_k_accuracy,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
PREDICTIONS = np.array([0, 0, 0, 1, 1, 0, 2, 2, 0, 0])
"""Class 0: 3 of 4 found, 6 predicted. Class 1: 1 of 2, 2 predicted. Class 2: 2 of 4, 2 predicted."""


class TestClassCounts:
    counts = class_counts(confusion_matrix(LABELS, PREDICTIONS, 3))

    def test_confusion_has_labels_in_rows(self) -> None:
        assert confusion_matrix(LABELS, PREDICTIONS, 3).tolist() == [[3, 1, 0], [1, 1, 0], [2, 0, 2]]

    def test_metrics(self) -> None:
        assert float(self.counts.accuracy) == pytest.approx(0.6)
        assert self.counts.recall == pytest.approx([3 / 4, 1 / 2, 1 / 2])
        assert self.counts.precision == pytest.approx([3 / 6, 1 / 2, 1])
        assert self.counts.f_score() == pytest.approx([6 / 10, 2 / 4, 4 / 6])
        assert float(self.counts.macro_f1) == pytest.approx((0.6 + 0.5 + 2 / 3) / 3)
        assert self.counts.f_score(2.0) == pytest.approx([15 / 22, 5 / 10, 10 / 18])
        assert float(self.counts.weighted(self.counts.recall)) == pytest.approx(0.6)
        assert float(self.counts.weighted(self.counts.precision)) == pytest.approx((2 + 1 + 4) / 10)

    def test_a_class_without_images_has_no_recall_and_leaves_macro_f1_alone(self) -> None:
        counts = class_counts(confusion_matrix(LABELS, PREDICTIONS, 5))
        assert np.isnan(counts.recall[3:]).all()
        assert np.isnan(counts.precision[3:]).all()
        assert float(counts.macro_f1) == pytest.approx(float(self.counts.macro_f1))

    def test_leading_axes_are_kept(self) -> None:
        both = np.stack([confusion_matrix(LABELS, PREDICTIONS, 3), confusion_matrix(LABELS, LABELS, 3)])
        assert class_counts(both).accuracy == pytest.approx([0.6, 1.0])
        assert class_counts(both).macro_f1 == pytest.approx([float(self.counts.macro_f1), 1.0])


class TestProbabilities:
    labels = np.array([0, 1, 2])
    probabilities = np.array([[0.5, 0.3, 0.2, 0.0], [0.6, 0.3, 0.1, 0.0], [0.4, 0.3, 0.2, 0.1]])

    def test_top_k(self) -> None:
        assert top_k_accuracy(self.labels, self.probabilities, 1) == pytest.approx(1 / 3)
        assert top_k_accuracy(self.labels, self.probabilities, 2) == pytest.approx(2 / 3)
        assert top_k_accuracy(self.labels, self.probabilities, 5) == 1

    def test_an_unknown_class_is_never_among_the_top(self) -> None:
        assert top_k_accuracy(np.array([3]), self.probabilities[:1], 5) == 0

    def test_negative_log_likelihood(self) -> None:
        expected = -(math.log(0.5) + math.log(0.3) + math.log(0.2)) / 3
        assert negative_log_likelihood(self.labels, self.probabilities) == pytest.approx(expected)

    def test_an_unknown_class_has_a_finite_likelihood(self) -> None:
        unknown = negative_log_likelihood(np.array([3]), self.probabilities[:1])
        assert unknown == pytest.approx(23 * math.log(2))


class TestCalibration:
    def test_two_bins(self) -> None:
        """Confidence 0.9 and 0.7, one right: gap 0.3 on 2 images. 0.4, wrong: gap 0.4 on 1."""
        probabilities = np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.4, 0.3, 0.3]])
        bins = calibration(np.array([0, 0, 1]), probabilities, bins=2)
        assert bins.images.tolist() == [1, 2]
        assert bins.confidence == pytest.approx([0.4, 0.8])
        assert bins.accuracy == pytest.approx([0.0, 0.5])
        assert bins.error == pytest.approx((0.4 + 2 * 0.3) / 3)

    def test_bins_include_their_upper_edge(self) -> None:
        bins = calibration(np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]]), bins=2)
        assert bins.images.tolist() == [1, 1]

    def test_empty_bins_do_not_count(self) -> None:
        bins = calibration(np.array([0]), np.array([[1.0, 0.0]]))
        assert np.isnan(bins.accuracy[:-1]).all()
        assert bins.error == 0
