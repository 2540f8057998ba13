"""The approval's operator without a person behind it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.exceptions import HITLTriggerEventError
from airflow.sdk import Context
from retraining.config.pipeline import Pipeline
from retraining.operators.approval import ApprovalOperator


def test_an_error_of_the_request_for_approval_is_no_response(pipeline: Pipeline) -> None:
    nothing: Any = {}
    approve = ApprovalOperator(
        task_id="approve",
        pipeline=pipeline,
        plan=nothing,
        gate=nothing,
        package=nothing,
        debugger=nothing,
    )
    with pytest.raises(HITLTriggerEventError, match="no such form"):
        approve.execute_complete(Context(), {"error": "no such form", "error_type": "validation"})
