"""What the DAGs' Python tasks do: each a method, whose docstring Airflow shows, with the work in a module.

Cheap to import, because a DAG file does: what a task needs is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from retraining.config.pipeline import Pipeline
from retraining.reporting.outcome import keep_reason, skip_explained

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol as DagRun
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance

Result = dict[str, Any]
Params = Mapping[str, Any]


def task_defaults(pipeline: Pipeline, *, first_wait: timedelta, longest_wait: timedelta) -> dict[str, Any]:
    """`default_args` of the pipeline's DAGs; the waits are those between a task's tries."""
    return {
        "owner": pipeline.owner,
        "retries": 2,
        "retry_delay": first_wait,
        "retry_exponential_backoff": True,
        "max_retry_delay": longest_wait,
        "on_failure_callback": keep_reason,
    }


@dataclass(frozen=True)
class Steps:
    """The tasks of a retraining run. `params`, `dag_run` and `ti` are the arguments that Airflow fills in."""

    pipeline: Pipeline

    def check_dataset(self, params: Params, dag_run: DagRun) -> Result:
        """Reads the **data set** in S3 before anything is paid for: structure, counts, damaged files,
        duplicates, leakage between splits, change since the last run. An error names the files and the
        fix; the page behind the link in the log shows them.
        """
        from retraining.dataset.check import check_dataset
        from retraining.runs.context import begin
        from retraining.runs.state import last_run

        settings, aws, location = begin(self.pipeline, params, dag_run)
        return check_dataset(self.pipeline, settings, aws, location, last_run(aws, location))

    def plan(self, dataset: Result, params: Params, dag_run: DagRun, ti: TaskInstance) -> Result:
        """Builds **every request** of the run with the SageMaker SDK and uploads the training code. The
        log shows the requests and what they may cost; the names in them follow from the run, so that a
        retry finds its jobs. Skips the run if nothing changed since the last one.
        """
        from retraining.planning.plan import plan_run
        from retraining.runs.context import begin
        from retraining.runs.state import last_run

        settings, aws, location = begin(self.pipeline, params, dag_run)
        last, run_id = last_run(aws, location), dag_run.run_id
        with skip_explained(ti):
            return plan_run(self.pipeline, settings, dataset, aws, location, run_id=run_id, last=last)

    def choose_hyperparameters(self, training: Result, tuning: Result | None) -> Result:
        """Puts the **best trial's hyperparameters** into the training request. Without tuning, those of the
        last search stay, or else the pipeline file's.
        """
        from retraining.planning.plan import training_request

        return training_request(training, tuning)

    def choose_candidates(self, planned: Result, deployment: Result, training: Result) -> Result:
        """Finds the **champion**: the model in service now. The evaluation compares the new one with it."""
        from retraining.aws.clients import Aws
        from retraining.evaluation.champion import evaluation_request

        return evaluation_request(planned, deployment, training, self.pipeline, Aws())

    def gate(self, evaluation: Result, debugger: Result) -> Result:
        """Decides whether the **challenger** may replace the champion, and says why in a sentence."""
        from retraining.aws.clients import Aws
        from retraining.evaluation.gate import gate

        return gate(self.pipeline, evaluation, debugger, Aws())

    def register(
        self,
        *,
        plan: Result,
        tuning: Result | None,
        training: Result,
        debugger: Result,
        candidates: Result,
        evaluation: Result,
        gate: Result,
    ) -> Result:
        """Puts the model into the **registry**: approved or rejected by the gate, or pending approval."""
        from retraining.aws.clients import Aws
        from retraining.registry.registry import register

        return register(
            self.pipeline,
            plan=plan,
            dataset=plan["run"]["dataset"],
            tuning=tuning,
            training=training,
            debugger=debugger,
            candidates=candidates,
            evaluation=evaluation,
            gate=gate,
            aws=Aws(),
        )

    def choose_model(
        self,
        *,
        deployment: Result,
        training: Result,
        package: Result,
        replaces: str | None,
        approval: Result,
        ti: TaskInstance,
    ) -> Result:
        """Puts the **model** that the training job left in S3 into the deployment request. Skips the
        deployment where the gate or a person said no.
        """
        from retraining.evaluation.approval import approved_or_skip
        from retraining.planning.plan import deployment_request

        with skip_explained(ti):
            approved_or_skip(approval)
        return deployment_request(deployment, training, package, replaces)

    def verify(
        self, *, dataset: Result, training: Result, evaluation: Result, endpoint: Result, package: Result
    ) -> Result:
        """Sends **test pictures** to the endpoint and compares the answers with those of the evaluation.
        Restores the model before if they differ, and fails.
        """
        from retraining.aws.clients import Aws
        from retraining.deployment.verify import verify_endpoint

        return verify_endpoint(
            pipeline=self.pipeline,
            dataset=dataset,
            training=training,
            evaluation=evaluation,
            endpoint=endpoint,
            package=package,
            aws=Aws(),
        )

    def retire(self, params: Params, dag_run: DagRun) -> Result:
        """Deletes what **earlier runs** left and nothing uses: all but the last few models, endpoint
        configurations and run folders. Lists what it deleted.
        """
        from retraining.deployment.retire import retire
        from retraining.runs.context import begin

        _, aws, location = begin(self.pipeline, params, dag_run)
        return retire(self.pipeline, location, aws)

    def remember(
        self,
        *,
        plan: Result,
        tuning: Result | None,
        training: Result,
        evaluation: Result,
        approval: Result,
        params: Params,
        dag_run: DagRun,
    ) -> Result:
        """Keeps what the **next run** compares itself with: fingerprint, search, costs."""
        from retraining.costs.billing import run_costs
        from retraining.runs.context import begin
        from retraining.runs.state import remember

        _, aws, location = begin(self.pipeline, params, dag_run)
        return remember(
            aws=aws,
            location=location,
            plan=plan,
            tuning=tuning,
            approval=approval,
            costs=run_costs(aws, plan, tuning=tuning, training=training, evaluation=evaluation),
        )


@dataclass(frozen=True)
class RollbackSteps:
    """The tasks of a rollback."""

    pipeline: Pipeline

    def choose(self, dag_run: DagRun) -> Result:
        """Finds the **model before** in the registry and builds the request that deploys it. Fails if there
        is none.
        """
        from retraining.aws.clients import Aws
        from retraining.deployment.rollback import choose

        return choose(self.pipeline, Aws(), dag_run)

    def verify(self, chosen: Result, endpoint: Result, params: Params, dag_run: DagRun) -> Result:
        """Checks **configuration, model and answers**, and rejects the model that was replaced."""
        from retraining.aws.clients import Aws
        from retraining.deployment.rollback import settle_rollback

        return settle_rollback(
            pipeline=self.pipeline,
            chosen=chosen,
            endpoint=endpoint,
            aws=Aws(),
            who=dag_run.triggering_user_name,
            why=params["reason"],
        )
