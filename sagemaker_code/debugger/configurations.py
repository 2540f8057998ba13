"""Rule configurations as JSON: a list of objects as in CreateTrainingJob's DebugRuleConfigurations."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from debugger.rules import RULE_NAMES, unknown_rule


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


def check_rule_names(rules: Iterable[Mapping[str, Any]]) -> None:
    """Raise RuleConfigurationsError for the first configuration whose rule does not exist."""
    for rule in rules:
        name = invoked_rule(rule)
        if name not in RULE_NAMES:
            raise RuleConfigurationsError(unknown_rule(name))


def invoked_rule(rule: Mapping[str, Any]) -> str:
    """The name of the rule that a configuration invokes; empty without one."""
    return str((rule.get("RuleParameters") or {}).get("rule_to_invoke", ""))
