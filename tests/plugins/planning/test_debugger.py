"""Debugger rules on both sides of the wall: those that the plan knows are those that the script evaluates."""

from __future__ import annotations

import ast

from retraining.planning.debugger import RULES

from tests.dags.airflow_home import REPOSITORY


def test_the_plan_knows_the_rules_of_the_script() -> None:
    source = (REPOSITORY / "sagemaker_code" / "debugger" / "rules" / "__init__.py").read_text()
    [modules] = [
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    ]
    assert modules.keys() == RULES.keys()
