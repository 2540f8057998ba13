"""The verdict of the Debugger rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.errors import RuleFindingError
from retraining.jobs.debugger_rules import debugger_result
from retraining.operators.links import ProfilerReportLink
from retraining.operators.result import Returns
from retraining.runs.results import DebuggerResult, TrainingResult

if TYPE_CHECKING:
    from airflow.sdk import Context


class DebuggerStatusOperator(Returns[DebuggerResult]):
    """Waits for the rules of a training job, shows their table, and applies the pipeline's policy to each.

    Returns its result also when a rule's policy then fails the task.
    """

    template_fields: Sequence[str] = ("training",)
    operator_extra_links = (ProfilerReportLink(),)
    ui_color = "#ededed"

    def __init__(self, *, pipeline: Pipeline, training: TrainingResult, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.training = training
        self.report_url: str | None = None

    def execute(self, context: Context) -> DebuggerResult:
        result = debugger_result(self.pipeline, self.training, Aws())
        self.report_url = result["report_url"]
        if result["blocking"]:
            context["ti"].xcom_push(key="return_value", value=result)
            findings = {rule["rule"]: rule["finding"] or rule["details"] for rule in result["rules"]}
            raise RuleFindingError(
                "Rules with the policy fail found something, so the model is not deployed: "
                + "; ".join(f"{name}: {findings[name]}" for name in result["blocking"])
            )
        return result
