"""AWS's built-in debugger rules by name, on smdebug's ``Rule`` and trials.

AWS's code for them is not public. Names, parameters and defaults are those of the page "List of Debugger
built-in rules"; where that page leaves a definition open, the rule's docstring says what is our reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from debugger.rules.activations import AllZero, DeadRelu
from debugger.rules.base import (
    DebuggerRule,
    EmptyTrial,
    Finding,
    RuleParameterError,
    TensorReader,
    UnknownRuleError,
)
from debugger.rules.gradients import ExplodingTensor, VanishingGradient
from debugger.rules.images import CheckInputImages
from debugger.rules.imbalance import ClassImbalance
from debugger.rules.initialization import PoorWeightInitialization
from debugger.rules.losses import LossNotDecreasing, Overfit, Overtraining
from debugger.rules.stalled import StalledTrainingRule
from debugger.rules.weights import WeightUpdateRatio

__all__ = [
    "RULES",
    "DebuggerRule",
    "EmptyTrial",
    "Finding",
    "RuleParameterError",
    "TensorReader",
    "UnknownRuleError",
    "make_rule",
]

RULES: dict[str, type[DebuggerRule]] = {
    rule.__name__: rule
    for rule in (
        AllZero,
        CheckInputImages,
        ClassImbalance,
        DeadRelu,
        ExplodingTensor,
        LossNotDecreasing,
        Overfit,
        Overtraining,
        PoorWeightInitialization,
        StalledTrainingRule,
        VanishingGradient,
        WeightUpdateRatio,
    )
}


def make_rule(name: str, trial: Any, parameters: Mapping[str, str], reader: TensorReader) -> DebuggerRule:
    """The rule called ``name`` over ``trial``. Raises UnknownRuleError or RuleParameterError."""
    rule = RULES.get(name)
    if rule is None:
        raise UnknownRuleError(f"no rule {name!r}; rules are {', '.join(sorted(RULES))}")
    return rule(trial, parameters, reader)
