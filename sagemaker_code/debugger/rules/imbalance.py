"""Rule on classes: are some too rare, and are those mispredicted?"""

from collections import deque
from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import (
    Array,
    DebuggerRule,
    Finding,
    Parameter,
    boolean,
    count,
    matches,
    number,
    patterns,
    positive,
)

LABELS, PREDICTIONS = ".*labels", ".*predictions"
LOSS_LABELS, LOSS_SCORES = ".*[Ll]oss_input_1", ".*[Ll]oss_input_0"


class ClassImbalance(DebuggerRule):
    """Fires, over the last ``samples`` labels seen in training, if the largest class has more than
    ``threshold_imbalance`` times the samples of the smallest, or if more than ``threshold_misprediction`` of
    a class are mispredicted.

    Our interpretation: PyTorch's hook names neither labels nor predictions, so if the default patterns match
    nothing, the inputs of the loss are used: scores (arg-max) and labels. Mispredictions count only for
    classes that are rarer than chance explains (three standard deviations below an equal share) while the
    largest class is predicted well; an untrained model mispredicts all classes.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "threshold_imbalance": Parameter(positive, 10.0),
        "threshold_misprediction": Parameter(positive, 0.7),
        "samples": Parameter(count, 500),
        "argmax": Parameter(boolean, default=False),
        "labels_regex": Parameter(patterns, [LABELS]),
        "predictions_regex": Parameter(patterns, [PREDICTIONS]),
    }
    WANTS = "labels (.*labels, or the loss's inputs: include_regex '.*[Ll]oss_input')"
    NEEDED = 1

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._labels: deque[int] = deque(maxlen=self.parameters["samples"])
        self._predictions: deque[int] = deque(maxlen=self.parameters["samples"])
        self._seen = 0

    def judge(self, step: int) -> Finding | None:
        """Add the step's labels, and evaluate them once there are ``samples``."""
        if self.reader.mode(step) not in ("TRAIN", "GLOBAL"):
            return None
        labels = self._find(step, "labels_regex", LOSS_LABELS)
        if labels is None:
            return None
        classes = labels.reshape(-1).astype(int)
        scores = self._find(step, "predictions_regex", LOSS_SCORES)
        self._labels.extend(classes.tolist())
        self._predictions.extend(_classes_of(scores, len(classes), argmax=self.parameters["argmax"]))
        self._seen += len(classes)
        if len(self._labels) < self.parameters["samples"]:
            return None
        self.judged += 1
        return self._verdict(step)

    def insufficient_data(self) -> str:
        """Explains how many labels are missing."""
        if self._seen:
            return (
                f"It saw {self._seen} labels and needs {self.parameters['samples']} (parameter samples): "
                "save labels more often or lower it."
            )
        return super().insufficient_data()

    def _find(self, step: int, parameter: str, fallback: str) -> Array | None:
        regexes = self.parameters[parameter]
        found = [one for one in sorted(self.reader.names(step)) if matches(one, regexes)]
        if not found and regexes == self.PARAMETERS[parameter].default:
            found = [one for one in sorted(self.reader.names(step)) if matches(one, [fallback])]
        return self.reader.value(found[0], step) if found else None

    def _verdict(self, step: int) -> Finding | None:
        labels = np.array(self._labels)
        classes, counts = np.unique(labels, return_counts=True)
        small, large = int(counts.argmin()), int(counts.argmax())
        ratio = counts[large] / counts[small]
        limit = self.parameters["threshold_imbalance"]
        self.closest = f"Largest to smallest class: {number(float(ratio))}, threshold {limit:g}."
        advice = (
            "collect more images of the rare classes, sample them more often, or weight the loss by class"
        )
        if ratio > limit:
            return Finding(
                step,
                f"class {classes[large]} has {counts[large]} and class {classes[small]} {counts[small]} "
                f"of the last {len(labels)} labels at step {step}: the ratio {number(float(ratio))} is "
                f"above the threshold {limit:g}.",
                advice,
            )
        wrong = self._mispredicted(labels, classes)
        allowed = self.parameters["threshold_misprediction"]
        if wrong is None or wrong[large] > allowed:
            return None
        share = 1 / len(classes)
        fewest = len(labels) * share - 3 * np.sqrt(len(labels) * share * (1 - share))
        rare = np.flatnonzero(counts < fewest)
        bad = [index for index in rare if wrong[index] > allowed]
        if not bad:
            return None
        worst = max(bad, key=lambda index: float(wrong[index]))
        return Finding(
            step,
            f"{100 * wrong[worst]:.0f} % of class {classes[worst]} ({counts[worst]} of the last "
            f"{len(labels)} labels) are mispredicted at step {step}, above the threshold "
            f"{100 * allowed:.0f} %, against {100 * wrong[large]:.0f} % of class {classes[large]} "
            f"({counts[large]} labels).",
            advice,
        )

    def _mispredicted(self, labels: Array, classes: Array) -> Array | None:
        predictions = np.array(self._predictions)
        if (predictions < 0).any():
            return None
        return np.array([(predictions[labels == one] != one).mean() for one in classes])


def _classes_of(scores: Array | None, size: int, *, argmax: bool) -> list[int]:
    """The predicted classes; -1 if they are not known."""
    if scores is None:
        return [-1] * size
    if argmax or scores.ndim > 1:
        scores = scores.reshape(scores.shape[0], -1).argmax(axis=1)
    found: list[int] = scores.reshape(-1).astype(int).tolist()
    return found if len(found) == size else [-1] * size
