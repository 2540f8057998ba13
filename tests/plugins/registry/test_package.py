"""The content types that a version states, against those that the serving script takes."""

from __future__ import annotations

import ast
from pathlib import Path

from retraining.deployment import predictions
from retraining.registry.package import CONTENT_TYPES, RESPONSE_TYPES

from tests.dags.airflow_home import REPOSITORY

SCRIPTS = REPOSITORY / "sagemaker_code"


def stated(name: str) -> object:
    """The value of a constant of the serving script, which cannot be imported without PyTorch."""
    [value] = _assigned(SCRIPTS / "classifier" / "requests.py", name)
    return value


def _assigned(source: Path, name: str) -> list[object]:
    return [
        ast.literal_eval(statement.value)
        for statement in ast.parse(source.read_text()).body
        if isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    ]


def test_the_serving_script_takes_the_content_types_of_a_version() -> None:
    accepted = stated("CONTENT_TYPES")
    assert isinstance(accepted, tuple)
    assert accepted == CONTENT_TYPES
    assert {*predictions.CONTENT_TYPES.values(), predictions.ANY_IMAGE} <= set(CONTENT_TYPES)


def test_the_serving_script_responds_with_the_type_of_a_version() -> None:
    assert [stated("RESPONSE_TYPE")] == list(RESPONSE_TYPES)
