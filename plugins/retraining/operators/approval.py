"""A person's approval of the model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.hitl import HITLOperator

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.evaluation.approval import body, decision_of, subject, without_asking
from retraining.operators.result import Returns
from retraining.registry.registry import set_approval
from retraining.runs.results import ApprovalResult, DebuggerResult, GateResult, PackageResult, Plan

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApprovalOperator(Returns[ApprovalResult], HITLOperator):
    """Asks a person whether the model that passed the gate may go into service, if the run wants that.

    Sets the approval of the model's version in the registry. The task succeeds with a no, too; the deployment
    then skips itself. `debugger` is for the request's table of rules; `notifiers` are told about the request.
    """

    APPROVE = "Approve"
    REJECT = "Reject"
    template_fields: Sequence[str] = ("plan", "gate", "package", "debugger")
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(template_fields, "json")
    ui_color = "#ededed"

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        plan: Plan,
        gate: GateResult,
        package: PackageResult,
        debugger: DebuggerResult,
        **kwargs: Any,
    ) -> None:
        hours = pipeline.approval.timeout_hours
        super().__init__(
            subject="",  # known when the task runs
            options=[self.APPROVE, self.REJECT],
            defaults=[self.REJECT],
            response_timeout=timedelta(hours=hours) if hours else None,
            **kwargs,
        )
        self.pipeline = pipeline
        self.plan = plan
        self.gate = gate
        self.package = package
        self.debugger = debugger

    def execute(self, context: Context) -> ApprovalResult:
        run = self.plan["run"]
        decision = without_asking(run, self.gate)
        if decision is not None:
            self.log.info("Nobody is asked: %s", decision["sentence"])
            return decision
        self.subject = subject(run, self.package)
        self.body = body(run, self.gate, self.debugger, Aws().s3)
        self.log.info("%s\n%s", self.subject, self.body)
        result: ApprovalResult = super().execute(context)  # raises TaskDeferred until there is a response
        return result

    def execute_complete(self, context: Context, event: dict[str, Any]) -> ApprovalResult:  # noqa: ARG002
        if "error" in event and event["error_type"] != "timeout":
            self.process_trigger_event_error(event)
        decision = decision_of(event, self.gate, self.APPROVE, self.pipeline.approval.timeout_hours)
        set_approval(Aws(), self.package["arn"], decision["approved"], decision["sentence"])
        return decision
