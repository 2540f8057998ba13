"""Rule configurations as in CreateTrainingJob's DebugRuleConfigurations: from JSON, or a hyperparameter."""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from debugger.rules import RULE_NAMES, unknown_rule

NO_RULES = "none"
"""The hyperparameter's value for no rules: an empty one would be lost in a shell command."""


class RuleConfigurationsError(ValueError):
    """Rule configurations cannot be used; the message names their source and the fix."""


def parse_rules(text: str, source: str) -> list[dict[str, Any]]:
    """Rule configurations from the JSON in ``source``. Raises RuleConfigurationsError."""
    try:
        rules = json.loads(text)
    except ValueError as error:
        raise RuleConfigurationsError(f"{source} is not JSON: {error}") from error
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise RuleConfigurationsError(f"{source} must be a list of DebugRuleConfiguration objects")
    return rules


def rules_from_hyperparameter(text: str) -> list[dict[str, Any]]:
    """Rule configurations from `RULE[:parameter=value ...],...`, or from `none`.

    Values are percent-encoded: AWS's images put hyperparameters into a shell command without quotes
    (sagemaker-training-toolkit #128), so no character may mean anything to a shell. Raises
    RuleConfigurationsError.
    """
    if text == NO_RULES:
        return []
    return [_rule(part) for part in text.split(",")]


def rule_configuration(name: str, **parameters: str) -> dict[str, Any]:
    """A DebugRuleConfiguration that invokes the rule ``name``."""
    return {"RuleConfigurationName": name, "RuleParameters": {"rule_to_invoke": name, **parameters}}


def _rule(text: str) -> dict[str, Any]:
    name, *parts = text.split(":")
    pairs = [part.partition("=") for part in parts]
    if not name or not all(key and equals for key, equals, _ in pairs):
        raise RuleConfigurationsError(
            f"{text!r} is no rule: write NAME or NAME:parameter=value:..., values percent-encoded, and a "
            f"comma between rules, or {NO_RULES}"
        )
    return rule_configuration(name, **{key: unquote(value) for key, _, value in pairs})


def check_rule_names(rules: Iterable[Mapping[str, Any]]) -> None:
    """Raise RuleConfigurationsError for the first configuration whose rule does not exist."""
    for rule in rules:
        name = invoked_rule(rule)
        if name not in RULE_NAMES:
            raise RuleConfigurationsError(unknown_rule(name))


def invoked_rule(rule: Mapping[str, Any]) -> str:
    """The name of the rule that a configuration invokes; empty without one."""
    return str((rule.get("RuleParameters") or {}).get("rule_to_invoke", ""))
