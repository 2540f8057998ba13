"""Rule configurations that cannot be used are refused with their source and the reason."""

from __future__ import annotations

import pytest
from debugger.configurations import RuleConfigurationsError, parse_rules


def test_a_list_of_objects_is_taken() -> None:
    assert parse_rules('[{"RuleConfigurationName": "Overfit"}]', "here") == [
        {"RuleConfigurationName": "Overfit"}
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "rules.json is not JSON: "),
        ('{"RuleConfigurationName": "Overfit"}', "rules.json must be a list"),
        ('["Overfit"]', "rules.json must be a list"),
    ],
)
def test_anything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RuleConfigurationsError, match=reason):
        parse_rules(text, "rules.json")
