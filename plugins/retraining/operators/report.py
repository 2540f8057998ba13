"""The report of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.errors import RunFailedError
from retraining.operators.links import RunReportLink
from retraining.operators.result import Returns
from retraining.reporting.outcome import failure_reasons, run_url, task_states
from retraining.runs.context import location_of
from retraining.runs.results import RunReport, RunResults, RunVerdict

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReportOperator(Returns[RunReport]):
    """Puts the run's results on one page and into one record, whatever happened before.

    Fails after that if the run did, so that Airflow judges the run by it.
    """

    template_fields: Sequence[str] = ("results",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"results": "json"}
    operator_extra_links = (RunReportLink(),)
    ui_color = "#ededed"

    def __init__(self, *, pipeline: Pipeline, results: RunResults, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.results = results
        self.report_url: str | None = None

    def execute(self, context: Context) -> RunReport:
        from retraining.reporting.report import run_report  # draws charts: not for the DAG file to import

        aws, bucket = Aws(), context["params"]["bucket"]  # the form's other values may be what ended the run
        states = task_states(context)
        states.pop(self.task_id, None)
        reached = {name: result for name, result in self.results.items() if result is not None}
        report = run_report(
            aws,
            location_of(self.pipeline, bucket, aws, context["dag_run"]),
            cast("RunResults", reached),
            states=states,
            reasons=failure_reasons(context, states),
            run_url=run_url(context),
        )
        self.report_url = report["report_url"]
        outcome = report["outcome"]
        last = next((task for task, state in reversed(list(states.items())) if state == "success"), None)
        marked = last is not None and context["ti"].xcom_pull(task_ids=last) is None
        if failed(outcome["verdict"], states, marked_success=marked):
            context["ti"].xcom_push(key="return_value", value=report)
            raise RunFailedError(outcome["sentence"])
        return report


def failed(verdict: RunVerdict, states: Mapping[str, str], *, marked_success: bool) -> bool:
    """Whether the run failed. Airflow asks only its last tasks, which are skipped if a person ends the run.

    `marked_success` is for a task that a person ended with this state, so that it returned nothing.
    """
    if any(state in {"failed", "upstream_failed"} for state in states.values()):
        return True
    return verdict == "unfinished" and not marked_success
