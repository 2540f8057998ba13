"""Rules on zeros: ReLUs that are never active, and tensors whose values are all zero."""

from typing import ClassVar

from debugger.rules.base import (
    Array,
    DebuggerRule,
    Finding,
    Parameter,
    matches,
    names,
    number,
    patterns,
    positive,
)


class DeadRelu(DebuggerRule):
    """Fires if more than ``threshold_layer`` per cent of a layer's ReLUs are active in less than
    ``threshold_inactivity`` per cent of the cases.

    Our interpretation: a ReLU is a feature of the layer (axis 1: a channel, or a unit of a linear layer), and
    its cases are the samples and positions of the saved batch. The first saved step is not evaluated.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "tensor_regex": Parameter(patterns, [".*relu_output"]),
        "threshold_inactivity": Parameter(positive, 1.0),
        "threshold_layer": Parameter(positive, 50.0),
    }
    WANTS = "outputs of ReLU layers under the names in tensor_regex (.*relu_output), at two steps or more"
    _most = -1.0

    def judge(self, step: int) -> Finding | None:
        """Count each layer's inactive features."""
        dead = {
            name: inactive_share(value, self.parameters["threshold_inactivity"])
            for name in sorted(self.reader.names(step))
            if matches(name, self.parameters["tensor_regex"])
            and (value := self.reader.value(name, step)) is not None
            and value.size
        }
        if not dead:
            return None
        self.judged += 1
        if self.judged == 1:
            return None
        name, share = max(dead.items(), key=lambda pair: pair[1])
        limit = self.parameters["threshold_layer"]
        if share > self._most:
            self._most = share
            self.closest = f"Most dead: {number(share)} % of {name} at step {step}, threshold {limit:g} %."
        if not share > limit:
            return None
        layers = sum(one > limit for one in dead.values())
        return Finding(
            step,
            f"{number(share)} % of the ReLUs of {name} are dead at step {step} (active in less than "
            f"{self.parameters['threshold_inactivity']:g} % of the cases), above the threshold {limit:g} "
            f"%; {layers} of {len(dead)} layers are.",
            "lower lr, use He initialisation with biases of zero, or LeakyReLU",
        )


def inactive_share(output: Array, threshold_inactivity: float) -> float:
    """Per cent of the features (axis 1) that are positive in less than that per cent of cases."""
    if output.ndim < 2:
        active = 100.0 * (output > 0).astype(float)
    else:
        active = 100.0 * (output > 0).mean(axis=tuple(axis for axis in range(output.ndim) if axis != 1))
    return float(100.0 * (active < threshold_inactivity).mean())


class AllZero(DebuggerRule):
    """Fires if at least ``threshold`` per cent of a tensor's values are zero.

    Our interpretation, if neither collection_names nor tensor_regex is given: all tensors except single
    numbers (a loss of zero is not a defect), biases and the shifts of norms, which start at zero, and labels,
    which may be zero. The first saved step is not evaluated.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {
        "collection_names": Parameter(names, None),
        "tensor_regex": Parameter(patterns, None),
        "threshold": Parameter(positive, 100.0),
    }
    WANTS = "tensors at two steps or more (those that collection_names and tensor_regex name, or any)"
    ZERO_BY_DESIGN = (r".*bias$", r".*[Ll]oss_input_1", r".*labels")
    _most = -1.0

    def judge(self, step: int) -> Finding | None:
        """Measure each tensor's share of zeros."""
        named = self.parameters["collection_names"] or self.parameters["tensor_regex"]
        shares = {
            name: float(100.0 * (value == 0).mean())
            for name in self.selected(step, default_all=True)
            if (named or not matches(name, list(self.ZERO_BY_DESIGN)))
            and (value := self.reader.value(name, step)) is not None
            and value.size > (0 if named else 1)
        }
        if not shares:
            return None
        self.judged += 1
        if self.judged == 1:
            return None
        name, share = max(shares.items(), key=lambda pair: pair[1])
        limit = self.parameters["threshold"]
        if share > self._most:
            self._most = share
            self.closest = f"Most zeros: {number(share)} % of {name} at step {step}, threshold {limit:g} %."
        if share < limit:
            return None
        return Finding(
            step,
            f"{number(share)} % of the values of {name} are zero at step {step}, at or above the "
            f"threshold {limit:g} %; so are {sum(one >= limit for one in shares.values())} of "
            f"{len(shares)} tensors.",
            "check the input and the initialisation; zero gradients mean that the layer is cut off from "
            "the loss",
        )
