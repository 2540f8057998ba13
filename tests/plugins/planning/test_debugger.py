"""Debugger rules on both sides of the wall: those that the plan knows are those that the script evaluates."""

from __future__ import annotations

import ast

from retraining.planning.debugger import RULES

from tests.dags.airflow_home import REPOSITORY


def test_the_plan_knows_the_rules_of_the_script() -> None:
    source = (REPOSITORY / "sagemaker_code" / "debugger" / "rules" / "__init__.py").read_text()
    [table] = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "RULES" and node.value
    ]
    names = {node.id for node in ast.walk(table) if isinstance(node, ast.Name)} - {"rule"}
    assert names == RULES.keys()
