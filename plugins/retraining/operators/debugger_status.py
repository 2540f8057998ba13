"""The verdict of the Debugger rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.errors import RuleFindingError
from retraining.jobs.debugger_rules import debugger_result
from retraining.jobs.followers import RulesFollower
from retraining.jobs.following import Event
from retraining.operators.deferring import DeferringOperator, defer_by_default
from retraining.operators.links import ProfilerReportLink
from retraining.runs.pages import leave_page
from retraining.runs.results import DebuggerResult, TrainingResult

if TYPE_CHECKING:
    from airflow.sdk import Context

_LAST_POLL = timedelta(minutes=1)  # the follower itself ends in time, at its next poll


class DebuggerStatusOperator(DeferringOperator[DebuggerResult]):
    """Waits for the rules of a training job, shows their table, and applies the pipeline's policy to each.

    Returns its result also when a rule's policy then fails the task.
    """

    template_fields: Sequence[str] = ("training",)
    operator_extra_links = (ProfilerReportLink(),)
    ui_color = "#ededed"

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        training: TrainingResult,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = defer_by_default() if deferrable is None else deferrable
        self.pipeline = pipeline
        self.training = training

    def execute(self, context: Context) -> DebuggerResult:
        if self.pipeline.debugger != "service":  # then the rules ended with the job
            return self.judge(context, {})
        limit = timedelta(seconds=self.pipeline.rules_wait_seconds)
        until = (datetime.now(UTC) + limit).isoformat()
        rules = RulesFollower(Aws(), {"name": self.training["job"], "until": until})
        return self.wait(context, rules, limit + _LAST_POLL, self.judge)

    def timed_out(self, context: Context) -> DebuggerResult:
        return self.judge(context, {})

    def judge(self, context: Context, event: Event) -> DebuggerResult:  # noqa: ARG002
        """Judge the rules as they are now."""
        result = debugger_result(self.pipeline, self.training, Aws())
        leave_page(context, result["report"])
        if result["blocking"]:
            context["ti"].xcom_push(key="return_value", value=result)
            findings = {rule["rule"]: rule["finding"] or rule["details"] for rule in result["rules"]}
            raise RuleFindingError(
                "Rules with the policy fail found something, so the model is not deployed: "
                + "; ".join(f"{name}: {findings[name]}" for name in result["blocking"])
            )
        return result
