"""What the operators do by themselves, without a job behind them."""

from __future__ import annotations

import pytest
from airflow.providers.standard.exceptions import HITLTriggerEventError
from airflow.sdk import Context
from retraining.config.pipeline import Pipeline
from retraining.operators.declared import ApprovalOperator


def test_an_error_of_the_request_for_approval_is_no_answer(pipeline: Pipeline) -> None:
    approve = ApprovalOperator(
        task_id="approve", pipeline=pipeline, plan={}, gate={}, package={}, debugger={}
    )
    with pytest.raises(HITLTriggerEventError, match="no such form"):
        approve.execute_complete(Context(), {"error": "no such form", "error_type": "validation"})
