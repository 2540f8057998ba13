"""Rule on the size of weight updates."""

from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import Array, DebuggerRule, Finding, Parameter, count, number, positive


class WeightUpdateRatio(DebuggerRule):
    """Fires if the ratio of update to weight is above ``large_threshold`` or below ``small_threshold``.

    Our interpretation: the ratio is mean|w(s) - w(earlier)| / (mean|w(earlier)| + epsilon), between saved
    training steps that are at least ``num_steps`` apart (default: the previous saved step). Only weights with
    two or more axes are evaluated: scales of normalisations start at zero or one by design, and relative to
    zero any update is infinite. Weights that never moved while others did are frozen and not evaluated.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "num_steps": Parameter(count, None),
        "large_threshold": Parameter(positive, 10.0),
        "small_threshold": Parameter(positive, 1e-8),
        "epsilon": Parameter(positive, 1e-9),
    }
    WANTS = "the collection 'weights' at two training steps or more"
    NEEDED = 1

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._before: dict[str, tuple[int, Array]] = {}
        self._moved: set[str] = set()
        self._largest = -1.0

    def judge(self, step: int) -> Finding | None:
        """Compare the weights with their last saved values."""
        if self.reader.mode(step) not in ("TRAIN", "GLOBAL"):
            return None
        ratios = self._ratios(step)
        if not ratios:
            return None
        self.judged += 1
        self._moved.update(name for name, ratio in ratios.items() if ratio > 0)
        name, ratio = max(ratios.items(), key=lambda pair: pair[1])
        large, small = self.parameters["large_threshold"], self.parameters["small_threshold"]
        if ratio > self._largest:
            self._largest = ratio
            self.closest = f"Largest ratio: {number(ratio)} of {name} at step {step}, threshold {large:g}."
        if ratio > large:
            return Finding(
                step,
                f"{name} moved by {number(ratio)} times its own size up to step {step}, above the "
                f"threshold {large:g}.",
                "lower lr, or clip gradients",
            )
        judged = {one: value for one, value in ratios.items() if one in self._moved or not self._moved}
        name, ratio = min(judged.items(), key=lambda pair: pair[1])
        if ratio < small:
            return Finding(
                step,
                f"{name} moved by {number(ratio)} of its own size up to step {step}, below the threshold "
                f"{small:g}.",
                "raise lr, and check that the optimiser has these weights and that they require gradients",
            )
        return None

    def _ratios(self, step: int) -> dict[str, float]:
        ratios = {}
        for name in self.reader.in_collection("weights", step):
            value = self.reader.value(name, step)
            if value is None or value.ndim < 2 or not value.any():
                continue
            earlier = self._before.get(name)
            if earlier is None:
                self._before[name] = (step, value)
            elif step - earlier[0] >= (self.parameters["num_steps"] or 1):
                size = float(np.abs(earlier[1]).mean()) + self.parameters["epsilon"]
                ratios[name] = float(np.abs(value - earlier[1]).mean()) / size
                self._before[name] = (step, value)
        return ratios
