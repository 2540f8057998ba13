"""Champion and challenger on the same images: the differences, how certain they are, and in which classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.bootstrap import Resampling, interval, mcnemar, resample
from evaluation.metrics import Bools, ClassCounts, Floats, Ints
from evaluation.model_metrics import ModelMetrics
from evaluation.scoring import TestSet


@dataclass(frozen=True)
class ClassChange:
    """The champion's and the challenger's recall of one class; NaN without images."""

    name: str
    known_to: str
    """`both`, `challenger` (a class added) or `champion` (a class removed)"""
    images: int
    challenger: float
    champion: float
    low: float
    high: float
    lower_bound: float
    upper_bound: float
    only_challenger_right: int
    only_champion_right: int

    @property
    def difference(self) -> float:
        """Challenger's minus champion's recall."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class Comparison:
    """The part `comparison` of evaluation.json, and the changes by class for the charts."""

    document: dict[str, Any]
    classes: list[ClassChange]


def compare(
    test: TestSet, challenger: ModelMetrics, champion: ModelMetrics, resampling: Resampling
) -> Comparison:
    """Every difference is the challenger's metric minus the champion's."""
    labels, class_count = test.labels, len(test.classes)
    predictions = [challenger.predictions, champion.predictions]
    drawn = resample(labels, predictions, class_count, resampling)
    given = [challenger.counts, champion.counts]
    known = {
        "challenger": set(challenger.candidate.card.classes),
        "champion": set(champion.candidate.card.classes),
    }
    common = np.array([name in known["challenger"] & known["champion"] for name in test.classes])
    right = [classes == labels for classes in predictions]
    only_challenger, only_champion = right[0] & ~right[1], right[1] & ~right[0]
    changes = _class_changes(
        test, known, given, drawn, only_right=(only_challenger, only_champion), resampling=resampling
    )
    confidence = resampling.confidence
    document = {
        "bootstrap": {"samples": resampling.samples, "confidence": confidence, "seed": resampling.seed},
        "accuracy": _difference(lambda counts: counts.accuracy, given, drawn, confidence),
        "macro_f1": _difference(lambda counts: counts.macro_f1, given, drawn, confidence),
        "accuracy_on_common_classes": {
            "images": int(common[labels].sum()),
            **_difference(lambda counts: _restricted(counts, common).accuracy, given, drawn, confidence),
        },
        "mcnemar": {
            "both_right": int((right[0] & right[1]).sum()),
            "only_challenger_right": int(only_challenger.sum()),
            "only_champion_right": int(only_champion.sum()),
            "both_wrong": int((~right[0] & ~right[1]).sum()),
            "p_value": mcnemar(int(only_challenger.sum()), int(only_champion.sum())),
        },
        "recall": [_row(change) for change in changes],
    }
    return Comparison(document, changes)


def _restricted(counts: ClassCounts, chosen: Bools) -> ClassCounts:
    """The counts of the chosen classes alone."""
    return ClassCounts(counts.right[..., chosen], counts.predicted[..., chosen], counts.support[..., chosen])


def _difference(
    metric: Callable[[ClassCounts], Floats],
    given: list[ClassCounts],
    drawn: list[ClassCounts],
    confidence: float,
) -> dict[str, Any]:
    challenger, champion = (metric(counts) for counts in given)
    bounds = interval(metric(drawn[0]) - metric(drawn[1]), confidence)
    return {
        "challenger": float(challenger),
        "champion": float(champion),
        "difference": float(challenger - champion),
        "interval": [float(bounds.low), float(bounds.high)],
        "lower_bound": float(bounds.lower_bound),
        "upper_bound": float(bounds.upper_bound),
    }


def _class_changes(
    test: TestSet,
    known: dict[str, set[str]],
    given: list[ClassCounts],
    drawn: list[ClassCounts],
    *,
    only_right: tuple[Bools, Bools],
    resampling: Resampling,
) -> list[ClassChange]:
    bounds = interval(drawn[0].recall - drawn[1].recall, resampling.confidence)
    gained, lost = (_by_class(test.labels[only], len(test.classes)) for only in only_right)
    changes = []
    for index, name in enumerate(test.classes):
        knowing = [role for role, classes in known.items() if name in classes]
        changes.append(
            ClassChange(
                name=name,
                known_to="both" if len(knowing) == 2 else knowing[0],
                images=int(given[0].support[index]),
                challenger=float(given[0].recall[index]),
                champion=float(given[1].recall[index]),
                low=float(bounds.low[index]),
                high=float(bounds.high[index]),
                lower_bound=float(bounds.lower_bound[index]),
                upper_bound=float(bounds.upper_bound[index]),
                only_challenger_right=int(gained[index]),
                only_champion_right=int(lost[index]),
            )
        )
    return changes


def _by_class(labels: Ints, class_count: int) -> Ints:
    return np.bincount(labels, minlength=class_count)


def _row(change: ClassChange) -> dict[str, Any]:
    return {
        "class": change.name,
        "known_to": change.known_to,
        "support": change.images,
        "challenger": change.challenger,
        "champion": change.champion,
        "difference": change.difference,
        "interval": [change.low, change.high],
        "lower_bound": change.lower_bound,
        "upper_bound": change.upper_bound,
        "only_challenger_right": change.only_challenger_right,
        "only_champion_right": change.only_champion_right,
        "mcnemar_p_value": mcnemar(change.only_challenger_right, change.only_champion_right),
    }
