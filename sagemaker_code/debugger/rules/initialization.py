"""Rule on the first steps: can the network learn from its initial weights?"""

from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import Finding, Parameter, count, matches, number, patterns, positive
from debugger.rules.losses import LossRule


class PoorWeightInitialization(LossRule):
    """Fires if, within the first ``steps`` saved training steps, the loss does not fall for ``patience`` of
    them and the initial weights explain it: variances of activation inputs differ between layers by more than
    a factor of ``threshold``, or the gap between the 5th and the 95th percentile of a gradient is below
    ``distribution_range``.

    Our interpretation: AWS's page lists three tests and does not say how they are combined. AWS's rule fires
    at step 0 on common pretrained networks, whose gradients are small although they train well. Here a
    symptom alone is therefore not enough; the loss must confirm it. Activation inputs decide if they are
    saved, gradients otherwise.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "activation_inputs_regex": Parameter(patterns, [".*relu_input"]),
        "threshold": Parameter(positive, 10.0),
        "distribution_range": Parameter(positive, 0.001),
        "patience": Parameter(count, 5),
        "steps": Parameter(count, 10),
    }
    WANTS = "the loss and activation inputs (.*relu_input) or gradients at the first training steps"
    NEEDED = 1
    FALL = 0.02
    """The part by which the mean loss must fall between the last ``patience`` steps and those before."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._losses: list[float] = []
        self._ratio: tuple[float, str, int] | None = None
        self._gap: tuple[float, str, int] | None = None

    def judge(self, step: int) -> Finding | None:
        """Collect the symptoms of the first training steps; evaluate after ``patience`` of them."""
        if self.reader.mode(step) not in ("TRAIN", "GLOBAL") or len(self._losses) >= self.parameters["steps"]:
            return None
        loss = self.loss(step)
        self._check_activations(step)
        self._check_gradients(step)
        if loss is None:
            return None
        self._losses.append(loss)
        if len(self._losses) <= self.parameters["patience"] or (self._ratio is None and self._gap is None):
            return None
        self.judged += 1
        return self._verdict(step)

    def _check_activations(self, step: int) -> None:
        variances = {
            name: variance
            for name in sorted(self.reader.names(step))
            if matches(name, self.parameters["activation_inputs_regex"])
            and (variance := self.reader.variance(name, step)) is not None
        }
        if len(variances) < 2 and not any(one == 0 for one in variances.values()):
            return
        low, high = (pick(variances.items(), key=lambda pair: pair[1]) for pick in (min, max))
        ratio = high[1] / low[1] if low[1] > 0 else np.inf
        if self._ratio is None or ratio > self._ratio[0] or np.isnan(ratio):
            text = f"the variances of {high[0]} ({number(high[1])}) and {low[0]} ({number(low[1])})"
            self._ratio = (ratio, text, step)

    def _check_gradients(self, step: int) -> None:
        for name in self.reader.in_collection("gradients", step):
            value = self.reader.value(name, step)
            if value is None or not value.size or name.endswith("bias"):
                continue
            low, high = np.percentile(value, [5, 95])
            gap = float(high - low)
            if self._gap is None or not gap >= self._gap[0]:
                self._gap = (gap, name, step)

    def _verdict(self, step: int) -> Finding | None:
        patience = self.parameters["patience"]
        early, late = np.mean(self._losses[:-patience]), np.mean(self._losses[-patience:])
        symptom = self._symptom()
        self.closest = (
            f"Loss {number(float(early))} at first, then {number(float(late))}; {symptom or 'no symptom'}."
        )
        if symptom is None or late < (1 - self.FALL) * early:
            return None
        return Finding(
            step,
            f"{symptom}; and the loss does not fall: mean {number(float(early))} at first, "
            f"{number(float(late))} over the {patience} saved steps up to step {step}.",
            "initialise with He (ReLU) or Xavier (tanh) instead of constants or wide normals, add "
            "normalisation layers, or start from pretrained weights",
        )

    def _symptom(self) -> str | None:
        threshold, reach = self.parameters["threshold"], self.parameters["distribution_range"]
        if self._ratio is not None:
            ratio, text, at = self._ratio
            if ratio <= threshold:
                return None
            return (
                f"{text} differ by the factor {number(ratio)} at step {at}, above the threshold {threshold:g}"
            )
        if self._gap is not None and not self._gap[0] >= reach:
            gap, name, at = self._gap
            return f"90 % of {name} lie within {number(gap)} at step {at}, below the threshold {reach:g}"
        return None

    def insufficient_data(self) -> str:
        """Explains how many losses are missing."""
        if self._losses and (self._ratio or self._gap):
            return (
                f"The losses of {len(self._losses)} training steps were saved; it needs "
                f"{self.parameters['patience'] + 1} (parameter patience, plus one): save the loss more often."
            )
        return super().insufficient_data()
