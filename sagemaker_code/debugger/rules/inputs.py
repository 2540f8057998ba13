"""Rule on the input: are the images normalised?"""

from typing import Any, ClassVar

import numpy as np

from debugger.rules.base import DebuggerRule, Finding, Parameter, count, matches, number, patterns, positive

MXNET_INPUT = ".*hybridsequential0_input_0"
MODEL_INPUT = r"^[A-Z]\w*(?<![Ll]oss)_input_0$"
"""smdebug names the input of a PyTorch model after its class: ``ResNet_input_0``."""


class CheckInputImages(DebuggerRule):
    """Fires if the mean of the input images differs from zero by more than ``threshold_mean``, once
    ``threshold_samples`` images have been saved.

    Our interpretation: each colour channel (axis ``channel``) is evaluated on its own. AWS's default
    ``regex`` is for MXNet; if it matches nothing, the model's own input is used.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "threshold_mean": Parameter(positive, 0.2),
        "threshold_samples": Parameter(count, 500),
        "regex": Parameter(patterns, [MXNET_INPUT]),
        "channel": Parameter(lambda text: int(float(text)), 1),
    }
    WANTS = "the input images (regex, or the model's input: include_regex '^[A-Z].*_input_0')"
    NEEDED = 1
    _images = 0
    _sum: Any = 0.0

    def judge(self, step: int) -> Finding | None:
        """Add the step's images to the mean, and evaluate it once there are enough."""
        regexes = self.parameters["regex"]
        found = [one for one in sorted(self.reader.names(step)) if matches(one, regexes)]
        if not found and regexes == [MXNET_INPUT]:
            found = [one for one in sorted(self.reader.names(step)) if matches(one, [MODEL_INPUT])]
        images = self.reader.value(found[0], step) if found else None
        channel = self.parameters["channel"]
        if images is None or images.ndim < 3 or not -images.ndim <= channel < images.ndim:
            return None
        axes = tuple(axis for axis in range(images.ndim) if axis != channel % images.ndim)
        self._sum = self._sum + images.mean(axis=axes, dtype=float) * len(images)
        self._images += len(images)
        if self._images < self.parameters["threshold_samples"]:
            return None
        self.judged += 1
        means = np.asarray(self._sum / self._images)
        worst = int(np.abs(means).argmax())
        limit = self.parameters["threshold_mean"]
        mean = f"the mean of channel {worst} over {self._images} images is {number(float(means[worst]))}"
        self.closest = f"Farthest from zero: {mean}, threshold {limit:g}."
        if not abs(means[worst]) > limit:
            return None
        listed = ", ".join(number(float(one)) for one in means)
        return Finding(
            step,
            f"{found[0]}: {mean} at step {step}, farther from zero than the threshold {limit:g} (all "
            f"channels: {listed}).",
            "normalise the input: subtract the mean and divide by the standard deviation of each colour "
            "channel",
        )

    def insufficient_data(self) -> str:
        """Explains how many images are missing."""
        if self._images:
            return (
                f"It saw {self._images} images and needs {self.parameters['threshold_samples']} "
                "(parameter threshold_samples): save the input more often or lower it."
            )
        return super().insufficient_data()
