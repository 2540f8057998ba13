"""Rules on the size of values: gradients that vanish, tensors that explode."""

from typing import ClassVar

import numpy as np

from debugger.rules.base import DebuggerRule, Finding, Parameter, boolean, names, number, patterns, positive


class VanishingGradient(DebuggerRule):
    """Fires if the mean absolute gradient of a tensor is below ``threshold``.

    Our interpretation: every gradient is evaluated on its own. Gradients of biases are evaluated only if no
    others are saved, because a bias before a normalisation has no gradient by construction. The first saved
    step is not evaluated, because layers that start at zero by design pass no gradient yet.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {"threshold": Parameter(positive, 1e-7)}
    WANTS = "the collection 'gradients'"
    _smallest = np.inf

    def judge(self, step: int) -> Finding | None:
        """Compare each gradient's mean absolute value with the threshold."""
        gradients = self.reader.in_collection("gradients", step)
        gradients = [one for one in gradients if not one.endswith("bias")] or gradients
        means = {
            name: mean for name in gradients if (mean := self.reader.mean_absolute(name, step)) is not None
        }
        if not means:
            return None
        self.judged += 1
        if self.judged == 1:
            return None
        name, mean = min(means.items(), key=lambda pair: pair[1])
        threshold = self.parameters["threshold"]
        if mean < self._smallest:
            self._smallest = mean
            self.closest = (
                f"Smallest mean |gradient|: {number(mean)} of {name} at step {step}, threshold {threshold:g}."
            )
        if not mean < threshold:
            return None
        small = sum(one < threshold for one in means.values())
        return Finding(
            step,
            f"{name} has a mean absolute gradient of {number(mean)} at step {step}, below the threshold "
            f"{threshold:g}; {small} of {len(means)} gradients are.",
            "use ReLU instead of sigmoid or tanh, He initialisation, normalisation layers or skip "
            "connections; if the training loss is near zero, training has converged: train fewer epochs",
        )


class ExplodingTensor(DebuggerRule):
    """Fires if a tensor holds a NaN or, unless ``only_nan``, an infinity."""

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "collection_names": Parameter(names, None),
        "tensor_regex": Parameter(patterns, None),
        "only_nan": Parameter(boolean, default=False),
    }
    WANTS = "any tensor with numbers (or those that collection_names and tensor_regex name)"
    NEEDED = 1

    def judge(self, step: int) -> Finding | None:
        """Count the values that are not finite."""
        for name in self.selected(step, default_all=True):
            value = self.reader.value(name, step)
            if value is None or not np.issubdtype(value.dtype, np.floating) or not value.size:
                continue
            self.judged += 1
            nans = int(np.isnan(value).sum())
            infinities = 0 if self.parameters["only_nan"] else int(np.isinf(value).sum())
            if nans or infinities:
                return Finding(
                    step,
                    f"{name} holds {nans} NaN and {infinities} infinite of {value.size} values at step "
                    f"{step}; none is allowed.",
                    "lower lr by a factor of ten, clip gradients, and check the input for division by zero",
                )
        self.closest = f"All values finite up to step {step}."
        return None
