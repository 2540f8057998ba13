"""Rule configurations as JSON: a list of objects, as CreateTrainingJob's DebugRuleConfigurations has them."""

from __future__ import annotations

import json
from typing import Any


class RuleConfigurationsError(ValueError):
    """A text is no list of rule configurations; the error's text names its source and the fix."""


def parse_rules(text: str, source: str) -> list[dict[str, Any]]:
    """Rule configurations from the JSON that ``source`` holds. Raises RuleConfigurationsError."""
    try:
        rules = json.loads(text)
    except ValueError as error:
        raise RuleConfigurationsError(f"{source} is not JSON: {error}") from error
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise RuleConfigurationsError(f"{source} must be a list of DebugRuleConfiguration objects")
    return rules
