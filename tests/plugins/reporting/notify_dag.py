"""A DAG file for tests: small runs that end in three ways, with notifications by a task and by callbacks.

It is copied beside a pipeline file, as Airflow would find both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, dag, task
from retraining.config.params import form
from retraining.config.pipeline import Pipeline, load_pipeline
from retraining.operators.report import ReportOperator
from retraining.reporting.notifications import notifiers
from retraining.reporting.outcome import keep_reason, skip_explained

ERROR = "no images of {{ 7 * 7 }} <b> & `x`"


def ending(pipeline: Pipeline, behaviour: str) -> DAG:
    """The DAG `notify_<behaviour>`: a plan, a training, a check, and the report as a teardown."""

    @dag(
        dag_id=f"notify_{behaviour}",
        schedule=None,
        params=form(pipeline),
        on_success_callback=notifiers(pipeline, "success"),
        on_failure_callback=notifiers(pipeline, "failure"),
        default_args={"on_failure_callback": keep_reason, "retries": 0},
    )
    def small() -> None:
        @task(multiple_outputs=True)
        def plan(ti: Any = None) -> dict[str, Any]:
            from airflow.sdk.exceptions import AirflowSkipException

            with skip_explained(ti):
                if behaviour == "skip":
                    raise AirflowSkipException("Nothing changed since Monday.")
            facts = dict.fromkeys(["run_id", "region", "code", "weights", "cost"])
            return {
                "run": facts,
                "tuning": None,
                "training": {"TrainingJobName": "never-started"},
                "evaluation": {"ProcessingJobName": "never-started"},
            }

        @task
        def train(request: Any) -> None:
            if behaviour == "fail":
                raise ValueError(ERROR)

        @task
        def verify(training: Any) -> dict[str, Any]:
            latency = {"median": 1.0, "p95": 2.0, "max": 3.0}
            return {
                "endpoint": "e",
                "images": 1,
                "accuracy": 1.0,
                "agreement": None,
                "max_probability_difference": None,
                "latency_ms": latency,
                "predictions": [],
            }

        @task
        def tell(**context: Any) -> None:
            known: Any = context
            for notifier in notifiers(pipeline, "failure" if behaviour == "fail" else "success") or []:
                notifier(known)

        requests: Any = plan()
        verified = verify(train(requests["training"]))
        results: Any = {"plan": requests, "verification": verified}
        report = ReportOperator(task_id="report", pipeline=pipeline, results=results)
        verified >> report >> tell().as_teardown()
        report.as_teardown()

    made: DAG = small()
    return made


for _pipeline in map(load_pipeline, Path(__file__).parent.glob("*.yaml")):
    for _behaviour in ("fail", "skip", "pass"):
        globals()[f"notify_{_behaviour}"] = ending(_pipeline, _behaviour)
