"""The report of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.sdk.definitions.xcom_arg import PlainXComArg

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.errors import RunFailedError
from retraining.jobs.leftovers import OVER
from retraining.operators.links import RunReportLink
from retraining.operators.result import Returns
from retraining.reporting.outcome import failure_reasons, run_state, run_url, task_states
from retraining.runs.context import RunLocation, location_of
from retraining.runs.pages import leave_page
from retraining.runs.results import RunReport, RunResults, RunVerdict

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReportOperator(Returns[RunReport]):
    """Puts the run's results on one page and into one record, whatever happened before.

    Does the same for earlier runs that ended without a page. Fails after that if the run did, so that Airflow
    judges the run by it.
    """

    template_fields: Sequence[str] = ("results",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"results": "json"}
    operator_extra_links = (RunReportLink(),)
    ui_color = "#ededed"

    def __init__(self, *, pipeline: Pipeline, results: RunResults, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.results = results
        # which task each result is from, before Airflow replaces the references by this run's results
        self._tasks = {
            name: result.operator.task_id
            for name, result in results.items()
            if isinstance(result, PlainXComArg)
        }

    def execute(self, context: Context) -> RunReport:
        aws, bucket = Aws(), context["params"]["bucket"]  # the form's other values may be what ended the run
        location = location_of(self.pipeline, bucket, aws, context["dag_run"])
        self._report_earlier(context, aws, location)
        states = self._states(context, context["run_id"])
        report = self._report(context, aws, location, context["run_id"], states=states, results=self.results)
        leave_page(context, report["report"])
        outcome = report["outcome"]
        last = next((task for task, state in reversed(list(states.items())) if state == "success"), None)
        marked = last is not None and context["ti"].xcom_pull(task_ids=last) is None
        if failed(outcome["verdict"], states, marked_success=marked):
            context["ti"].xcom_push(key="return_value", value=report)
            raise RunFailedError(outcome["sentence"])
        return report

    def _states(self, context: Context, run_id: str) -> dict[str, str]:
        states = task_states(context, run_id)
        states.pop(self.task_id, None)
        return states

    @staticmethod
    def _report(
        context: Context,
        aws: Aws,
        location: RunLocation,
        run_id: str,
        *,
        states: Mapping[str, str],
        results: Mapping[str, Any],
    ) -> RunReport:
        from retraining.reporting.report import run_report  # draws charts: not for the DAG file to import

        reached = {name: result for name, result in results.items() if result is not None}
        return run_report(
            aws,
            location,
            cast("RunResults", reached),
            states=states,
            reasons=failure_reasons(context, states, run_id),
            run_url=run_url(context, run_id),
        )

    def _report_earlier(self, context: Context, aws: Aws, location: RunLocation) -> None:
        """Write the pages that earlier runs did not get to. A failure is logged: this run matters more."""
        from retraining.reporting.missing import unreported

        try:
            for other, run_id in unreported(aws, location, self.pipeline.slug):
                if run_state(context, run_id) in OVER:
                    self.log.info("Writing the page that the run %s did not get to", run_id)
                    pull = partial(context["ti"].xcom_pull, run_id=run_id)
                    results = {name: pull(task_ids=task) for name, task in self._tasks.items()}
                    self._report(
                        context, aws, other, run_id, states=self._states(context, run_id), results=results
                    )
        except Exception:
            self.log.exception("The pages of earlier runs could not be written")


def failed(verdict: RunVerdict, states: Mapping[str, str], *, marked_success: bool) -> bool:
    """Whether the run failed. Airflow asks only its last tasks, which are skipped if a person ends the run.

    `marked_success` is for a task that a person ended with this state, so that it returned nothing.
    """
    if any(state in {"failed", "upstream_failed"} for state in states.values()):
        return True
    return verdict == "unfinished" and not marked_success
