"""The names of all rules, and AWS's built-in debugger rules on smdebug's ``Rule`` and trials.

AWS does not publish the code of its rules. Names, parameters and defaults are those of the page "List of
Debugger built-in rules"; where that page leaves a definition open, the rule's docstring states our
interpretation.

This module imports without smdebug, so that names can be checked anywhere.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from debugger.profiler.parameters import DEFAULTS

if TYPE_CHECKING:
    from debugger.rules.base import DebuggerRule, TensorReader

MODULES = {
    "AllZero": "activations",
    "CheckInputImages": "inputs",
    "ClassImbalance": "imbalance",
    "DeadRelu": "activations",
    "ExplodingTensor": "gradients",
    "LossNotDecreasing": "losses",
    "Overfit": "losses",
    "Overtraining": "losses",
    "PoorWeightInitialization": "initialization",
    "StalledTrainingRule": "stalled",
    "VanishingGradient": "gradients",
    "WeightUpdateRatio": "updates",
}
"""The module of this package that holds each debugger rule; the rule's class has the rule's name."""
PROFILER_REPORT = "ProfilerReport"
"""Evaluates all profiler rules at the end of the job and writes the report."""
PROFILER_RULES = (*DEFAULTS, PROFILER_REPORT)
RULE_NAMES = (*MODULES, *PROFILER_RULES)


class UnknownRuleError(ValueError):
    """A rule configuration invokes a rule that does not exist; the message names it and the nearest rule."""


def unknown_rule(name: str) -> str:
    """A sentence that says that there is no such rule and names the nearest one."""
    near = difflib.get_close_matches(name, RULE_NAMES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"rules are {', '.join(sorted(RULE_NAMES))}"
    return f"there is no rule {name!r}: {hint}"


def make_rule(name: str, trial: Any, parameters: Mapping[str, str], reader: "TensorReader") -> "DebuggerRule":
    """The debugger rule ``name`` over ``trial``. Raises UnknownRuleError or RuleParameterError."""
    if name not in MODULES:
        raise UnknownRuleError(unknown_rule(name))
    rule: type[DebuggerRule] = getattr(importlib.import_module(f"debugger.rules.{MODULES[name]}"), name)
    return rule(trial, parameters, reader)
