"""Rule on the input: are the pictures normalised?"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import DebuggerRule, Finding, Parameter, count, matches, number, patterns, positive

MXNET_INPUT = ".*hybridsequential0_input_0"
MODEL_INPUT = r"^[A-Z]\w*(?<![Ll]oss)_input_0$"
"""smdebug names the input of a PyTorch model by its class: ``ResNet_input_0``."""


class CheckInputImages(DebuggerRule):
    """Fires if the mean of the input pictures differs from zero by more than ``threshold_mean``, once
    ``threshold_samples`` pictures were seen.

    Our reading: each colour channel (axis ``channel``) is judged by itself. AWS's default ``regex`` fits
    MXNet; where it matches nothing, the model's own input is taken.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "threshold_mean": Parameter(positive, 0.2),
        "threshold_samples": Parameter(count, 500),
        "regex": Parameter(patterns, [MXNET_INPUT]),
        "channel": Parameter(lambda text: int(float(text)), 1),
    }
    WANTS = "the input pictures (regex, or the model's input: include_regex '^[A-Z].*_input_0')"
    NEEDED = 1

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._pictures = 0
        self._sum: Any = 0.0

    def judge(self, step: int) -> Finding | None:
        """Add the step's pictures to the mean and judge once there are enough."""
        regexes = self.parameters["regex"]
        found = [one for one in sorted(self.reader.names(step)) if matches(one, regexes)]
        if not found and regexes == [MXNET_INPUT]:
            found = [one for one in sorted(self.reader.names(step)) if matches(one, [MODEL_INPUT])]
        pictures = self.reader.value(found[0], step) if found else None
        channel = self.parameters["channel"]
        if pictures is None or pictures.ndim < 3 or not -pictures.ndim <= channel < pictures.ndim:
            return None
        axes = tuple(axis for axis in range(pictures.ndim) if axis != channel % pictures.ndim)
        self._sum = self._sum + pictures.mean(axis=axes, dtype=float) * len(pictures)
        self._pictures += len(pictures)
        if self._pictures < self.parameters["threshold_samples"]:
            return None
        self.judged += 1
        means = np.asarray(self._sum / self._pictures)
        worst = int(np.abs(means).argmax())
        limit = self.parameters["threshold_mean"]
        said = f"the mean of channel {worst} over {self._pictures} pictures is {number(float(means[worst]))}"
        self.closest = f"Farthest from zero: {said}, threshold {limit:g}."
        if not abs(means[worst]) > limit:
            return None
        listed = ", ".join(number(float(one)) for one in means)
        return Finding(
            step,
            f"{found[0]}: {said} at step {step}, farther from zero than the threshold {limit:g} (all "
            f"channels: {listed}).",
            "normalise the input: subtract the mean and divide by the standard deviation of each colour "
            "channel",
        )

    def shortage(self) -> str:
        """Say how many pictures were missing."""
        if self._pictures:
            return (
                f"It saw {self._pictures} pictures and needs {self.parameters['threshold_samples']} "
                "(parameter threshold_samples): save the input more often or lower it."
            )
        return super().shortage()
