"""What the DAGs' Python tasks do: each a method, whose docstring Airflow shows, with the work in a module.

Cheap to import, because a DAG file does: what a task needs is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from airflow.sdk import chain, get_current_context
from airflow.sdk.bases.decorator import task_decorator_factory

from retraining.config.pipeline import Pipeline
from retraining.reporting.outcome import keep_reason, run_state, skip_explained
from retraining.runs.context import RunContext
from retraining.runs.lineage import TracedPythonOperator, trace
from retraining.runs.pages import leave_page
from retraining.runs.results import (
    DatasetResult,
    DebuggerResult,
    EndpointResult,
    EvaluationResult,
    GateResult,
    LastRun,
    PackageResult,
    Plan,
    RetirementResult,
    RollbackChoice,
    RollbackResult,
    RunResults,
    VerificationResult,
)

P = ParamSpec("P")
R = TypeVar("R")


def typed_task(
    body: Callable[P, R],
    *,
    multiple_outputs: bool = False,
    operator: type[TracedPythonOperator] = TracedPythonOperator,
    **options: Any,
) -> Callable[P, R]:
    """Airflow's `@task` around `body`, typed: calling it in a DAG takes and returns what `body` does.

    While the DAG is declared, these are XComArgs; with `multiple_outputs`, keys of the result are, too.
    """
    decorated = task_decorator_factory(
        body, decorated_operator_class=operator, multiple_outputs=multiple_outputs, **options
    )
    return cast("Callable[P, R]", decorated)


def in_order(*results: object) -> None:
    """Make tasks that take nothing from each other run one after the other, named by their typed results."""
    chain(*cast("list[Any]", results))


def task_defaults(pipeline: Pipeline, *, first_wait: timedelta, longest_wait: timedelta) -> dict[str, Any]:
    """`default_args` of the pipeline's DAGs; the waits are those between a task's attempts."""
    return {
        "owner": pipeline.owner,
        "retries": 2,
        "retry_delay": first_wait,
        "retry_exponential_backoff": True,
        "max_retry_delay": longest_wait,
        "on_failure_callback": keep_reason,
    }


@dataclass(frozen=True)
class RetrainingTasks:
    """The tasks of a retraining run that are not operators of their own."""

    pipeline: Pipeline

    def check_dataset(self) -> DatasetResult:
        """Reads the **dataset** in S3 before anything is paid for: structure, counts, damaged files,
        duplicates, leakage between splits, changes since the last run. An error names the files and the
        fix; the page behind the link in the log shows them.
        """
        from retraining.dataset.check import check_dataset
        from retraining.reporting.missing import note_start
        from retraining.runs.state import last_run

        run = self._run()
        leave_page(get_current_context(), run.location.dataset_report)
        note_start(run.aws, run.location, run.run_id)
        last = last_run(run.aws, run.location)
        result = check_dataset(self.pipeline, run.settings, run.aws, run.location, last)
        trace([result["uri"]], [result["manifest"]])
        return result

    def plan(self, dataset: DatasetResult) -> Plan:
        """Builds **every request** of the run with the SageMaker SDK and uploads the training code. The
        log shows the requests and what they may cost; the names in them follow from the run, so that a
        retry finds its jobs. Skips the run if nothing changed since the last one. Stops jobs that outlived
        their runs, and finds what would keep the run from deploying in the end.
        """
        from retraining.costs.estimate import log_estimate
        from retraining.deployment.readiness import check_endpoint
        from retraining.jobs.leftovers import stop_leftovers
        from retraining.planning.plan import plan_run
        from retraining.runs.state import last_run

        run = self._run()
        if not self.pipeline.job.keep_running_on_kill:
            states = partial(run_state, get_current_context())
            stop_leftovers(run.aws, self.pipeline.slug, run.location.run, states)
        last = last_run(run.aws, run.location)
        with skip_explained(get_current_context()["ti"]):
            plan = plan_run(
                self.pipeline, run.settings, dataset, run.aws, run.location, run_id=run.run_id, last=last
            )
        check_endpoint(run.aws, plan["deployment"], self.pipeline.package_group)
        log_estimate(plan["run"]["cost"])
        return plan

    def gate(self, evaluation: EvaluationResult, debugger: DebuggerResult) -> GateResult:
        """Decides whether the **challenger** may replace the champion, and says why in a sentence."""
        from retraining.aws.clients import Aws
        from retraining.evaluation.gate import gate

        return gate(self.pipeline, evaluation, debugger, Aws())

    def register(self, results: RunResults) -> PackageResult:
        """Puts the model into the **registry**: approved or rejected by the gate, or pending approval."""
        from retraining.aws.clients import Aws
        from retraining.registry.registry import register

        package = register(self.pipeline, results, Aws())
        trace([results["training"]["model_artifact"], results["evaluation"]["output"]], [package["arn"]])
        return package

    def verify(self, results: RunResults) -> VerificationResult:
        """Sends **test images** to the endpoint and compares the predictions with those of the evaluation.
        Restores the previous model if they differ, and fails.
        """
        from retraining.aws.clients import Aws
        from retraining.deployment.verify import verify_endpoint

        return verify_endpoint(self.pipeline, results, Aws())

    def remember(self, results: RunResults) -> LastRun:
        """Keeps what the **next run** compares itself with: fingerprint, search, costs."""
        from retraining.costs.billing import actual_cost
        from retraining.runs.state import remember

        run = self._run()
        return remember(run.aws, run.location, results, actual_cost(run.aws, results))

    def retire(self) -> RetirementResult:
        """Deletes what **earlier runs** left and nothing uses: all but the last few models, endpoint
        configurations and run folders. Lists what it deleted.
        """
        from retraining.deployment.retire import retire

        run = self._run()
        return retire(self.pipeline, run.location, run.aws)

    def _run(self) -> RunContext:
        context = get_current_context()
        return RunContext.of(self.pipeline, context["params"], context["dag_run"])


@dataclass(frozen=True)
class RollbackTasks:
    """The tasks of a rollback."""

    pipeline: Pipeline

    def choose(self) -> RollbackChoice:
        """Finds the **previous model** in the registry and builds the request that deploys it. Fails if there
        is none.
        """
        from retraining.aws.clients import Aws
        from retraining.deployment.rollback import choose

        return choose(self.pipeline, Aws(), get_current_context()["dag_run"])

    def verify(self, chosen: RollbackChoice, endpoint: EndpointResult) -> RollbackResult:
        """Checks **configuration, model and predictions**, and rejects the model that was replaced."""
        from retraining.aws.clients import Aws
        from retraining.deployment.rollback import finish_rollback

        context = get_current_context()
        return finish_rollback(
            self.pipeline,
            chosen,
            endpoint,
            Aws(),
            who=context["dag_run"].triggering_user_name,
            why=context["params"]["reason"],
        )
