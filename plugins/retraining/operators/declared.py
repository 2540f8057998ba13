"""The operators as a DAG declares them.

Those of jobs and of the endpoint each stand for a subclass of a provider operator, which they load when the
task runs: importing the provider's operators costs half a second of boto3, at every parse of the DAG file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.bases.operator import ExecutorSafeguard

from retraining.aws.clients import CONNECTION
from retraining.config.pipeline import Pipeline

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey


class Job(Protocol):
    """What those subclasses have in common."""

    console_url: str | None

    def execute(self, context: Context) -> dict[str, Any]: ...

    def on_kill(self) -> None: ...


class ConsoleLink(BaseOperatorLink):
    """Opens the job or endpoint in the AWS console; no link for a local runtime."""

    name = "SageMaker console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        job = operator.job if isinstance(operator, _SageMakerOperator) else None
        return (job.console_url or "") if job else ""


class ProfilerReportLink(BaseOperatorLink):
    """Opens the profiler report of the run's training job."""

    name = "Profiler report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        return (operator.report_url or "") if isinstance(operator, DebuggerStatusOperator) else ""


class RunReportLink(BaseOperatorLink):
    """Opens the run's report."""

    name = "Run report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        return (operator.report_url or "") if isinstance(operator, ReportOperator) else ""


class _SageMakerOperator(BaseOperator):
    """Runs the provider's operator `implementation` on the request `config`, another task's result.

    `implementation` is `<module of this package>.<class>`.
    """

    implementation: ClassVar[str]
    template_fields: Sequence[str] = ("config",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"config": "json"}
    operator_extra_links = (ConsoleLink(),)
    ui_color = "#ededed"

    def __init__(self, *, config: Any, aws_conn_id: str = CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.aws_conn_id = aws_conn_id
        self.job: Job | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        module, _, name = self.implementation.rpartition(".")
        operator_class = getattr(import_module(f"retraining.{module}"), name)
        operator = operator_class(task_id=self.task_id, config=self.config, aws_conn_id=self.aws_conn_id)
        self.job = operator
        with _in_charge(operator):
            result: dict[str, Any] = operator.execute(context)
        return result

    def on_kill(self) -> None:
        if self.job is not None:
            self.job.on_kill()


class TuningOperator(_SageMakerOperator):
    """A hyperparameter tuning job, followed to its end. Skipped where `config` is None."""

    implementation = "jobs.adopting.AdoptingTuningOperator"
    custom_operator_name = "SageMakerTuningOperator"


class TrainingOperator(_SageMakerOperator):
    """A training job, followed to its end with its log."""

    implementation = "jobs.adopting.AdoptingTrainingOperator"
    custom_operator_name = "SageMakerTrainingOperator"


class EvaluationOperator(_SageMakerOperator):
    """The processing job that evaluates challenger and champion, followed to its end with its log."""

    implementation = "jobs.processing.AdoptingProcessingOperator"
    custom_operator_name = "SageMakerProcessingOperator"


class EndpointOperator(_SageMakerOperator):
    """A model, an endpoint configuration, and the endpoint that is created with it or updated to it."""

    implementation = "deployment.endpoint.IdempotentEndpointOperator"
    custom_operator_name = "SageMakerEndpointOperator"


class DebuggerStatusOperator(BaseOperator):
    """Waits for the rules of a training job, shows their table, and applies the pipeline's policy to each.

    Returns what `jobs.rules.debugger_result` returns, also when a rule's policy then fails the task.
    """

    template_fields: Sequence[str] = ("training",)
    operator_extra_links = (ProfilerReportLink(),)
    ui_color = "#ededed"

    def __init__(self, *, pipeline: Pipeline, training: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.training = training
        self.report_url: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from retraining.aws.clients import Aws
        from retraining.errors import RuleFindingError
        from retraining.jobs.debugger_rules import debugger_result

        result = debugger_result(self.pipeline, self.training, Aws())
        self.report_url = result["report_url"]
        if result["blocking"]:
            context["ti"].xcom_push(key="return_value", value=result)
            found = {rule["rule"]: rule["finding"] or rule["details"] for rule in result["rules"]}
            raise RuleFindingError(
                "Rules with the policy fail found something, so the model is not deployed: "
                + "; ".join(f"{name}: {found[name]}" for name in result["blocking"])
            )
        return result


class ApprovalOperator(HITLOperator):
    """Asks a person whether the model that the gate let through may go into service, if the run wants that.

    Returns `{approved, sentence, by, at}` and gives the model's version in the registry its status. A no
    skips nothing by itself: `decision.approval.approved_or_skip` does, before the model goes into service.
    `debugger` is for the request's table of rules; `notifiers` hear of the request.
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
        plan: Any,
        gate: Any,
        package: Any,
        debugger: Any,
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

    def execute(self, context: Context) -> dict[str, Any]:
        from retraining.aws.clients import Aws
        from retraining.evaluation.approval import body, subject, without_asking

        run = self.plan["run"]
        decision = without_asking(run, self.gate)
        if decision is not None:
            self.log.info("Nobody is asked: %s", decision["sentence"])
            return decision
        self.subject = subject(run, self.package)
        self.body = body(run, self.gate, self.debugger, Aws().s3)
        self.log.info("%s\n%s", self.subject, self.body)
        result: dict[str, Any] = super().execute(context)  # raises what parks the task until the answer
        return result

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        from retraining.aws.clients import Aws
        from retraining.evaluation.approval import answered
        from retraining.registry.registry import settle

        if "error" in event and event["error_type"] != "timeout":
            self.process_trigger_event_error(event)
        hours = self.pipeline.approval.timeout_hours
        decision = answered(event, self.gate, self.APPROVE, hours)
        settle(Aws(), self.package["arn"], decision["approved"], decision["sentence"])
        return decision


class ReportOperator(BaseOperator):
    """Puts the run's results on one page and into one record, whatever happened before.

    `results` are the keyword arguments of `reporting.report.run_report`, other tasks' results by name; those
    of tasks that did not get so far are None. Returns what that function returns.
    """

    template_fields: Sequence[str] = ("results",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"results": "json"}
    operator_extra_links = (RunReportLink(),)
    ui_color = "#ededed"

    def __init__(self, *, pipeline: Pipeline, results: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.results = results
        self.report_url: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        from retraining.aws.clients import Aws
        from retraining.reporting.outcome import reasons, run_url, task_states
        from retraining.reporting.report import run_report
        from retraining.runs.context import location_of

        aws, bucket = Aws(), context["params"]["bucket"]  # the form's other values may be what ended the run
        states = task_states(context)
        states.pop(self.task_id, None)
        report = run_report(
            aws=aws,
            location=location_of(self.pipeline, bucket, aws, context["dag_run"]),
            states=states,
            why=reasons(context, states),
            run_url=run_url(context),
            **self.results,
        )
        self.report_url = report["report_url"]
        return report


@contextmanager
def _in_charge(operator: BaseOperator) -> Iterator[None]:
    """Tell Airflow's safeguard that this operator is the one that the task runs."""
    token = ExecutorSafeguard.tracker.set(operator)
    try:
        yield
    finally:
        ExecutorSafeguard.tracker.reset(token)
