"""One retraining DAG for every file in `pipelines/`: from the data in S3 to the model in service.

This file says what happens and in which order. How it happens is in `plugins/retraining`, most of which the
tasks import when they run, so that parsing stays fast.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from retraining.config.params import form
from retraining.config.pipeline import Pipeline, load_pipelines
from retraining.operators.declared import (
    ApprovalOperator,
    DebuggerStatusOperator,
    EndpointOperator,
    EvaluationOperator,
    ReportOperator,
    TrainingOperator,
    TuningOperator,
)
from retraining.reporting.notifications import notifiers
from retraining.tasks import Steps, task_defaults

QUIET: dict[str, Any] = {"show_return_value_in_logs": False}  # a task logs what is worth reading
# Of tasks that run although one before them was skipped; they are skipped if all of them were.
NOTHING_FAILED = "none_failed_min_one_success"

DOC = """
### {name}: retrain, compare, deploy

{description}

| task | what it does |
|---|---|
| **check_dataset** | reads what is new in S3: damage, duplicates, leakage between splits, change by class |
| **plan** | builds all requests to SageMaker and estimates their cost; ends the run here if nothing changed |
| **tune** | searches for hyperparameters ({search_space}), starting from what the last search found |
| **train** | trains with the best of them, under Debugger rules ({rules}) and the profiler |
| **debugger_status** | shows what the rules found and stops the run where a rule's policy says so |
| **evaluate** | compares the new model (challenger) with the one in service (champion) |
| **gate** | decides, in a sentence with its numbers, whether the challenger may go live |
| **register** | puts the model into the registry, approved or rejected, with metrics and lineage |
| **approve** | asks a person, if the form or the pipeline file says so |
| **deploy** | shifts the traffic of `{endpoint}` to the new model under alarms that roll back |
| **verify** | compares the endpoint's answers with the evaluation's; restores the old model if they differ |
| **remember** | keeps what the next run compares itself with |
| **retire** | deletes old models, configurations and run folders that nothing uses |
| **report** | puts all of it on one page, whatever happened |

A task that runs again finds the job that its first try started. The connection `aws_default` decides where
all of this happens. Defaults and limits: `dags/pipelines/{name}.yaml`. Runs start by schedule, by hand, and
when the asset `{asset}` is updated. The DAG `{rollback}` goes back to the model before.
"""

TUNE_DOC = """
Runs the **hyperparameter tuning job**. The log shows a line whenever a trial starts, reports its objective or
ends. Skipped if the form says *Skip tuning*. Killing the task stops the job.
"""

TRAIN_DOC = """
Runs the **training job** with the best trial's hyperparameters. The log carries the script's own lines and
the status of each Debugger rule as it changes. Killing the task stops the job.
"""

RULES_DOC = """
Waits for **Debugger rules** that end after the training and prints them in one table: what each found, at
which step, and what to try. A finding of a rule with the policy `fail` ends the run here; an evaluation that
went wrong counts neither as a finding nor as its absence. The button opens the profiler report.
"""

EVALUATE_DOC = """
Runs the **processing job** that shows both models the same test pictures: accuracy, recall of each breed,
calibration, latency, and intervals for the differences. Killing the task stops the job.
"""

APPROVE_DOC = """
Shows the comparison and waits for **Approve** or **Reject** under *Required actions*, if the form or the
pipeline file asks for it. No answer in time is a no. Without approval the champion stays.
"""

DEPLOY_DOC = """
Creates model and endpoint configuration, then creates the **endpoint** or shifts its traffic step by step,
while alarms on errors and latency watch. Fails if another configuration than the requested one is in service
in the end, as after a rollback.
"""

REPORT_DOC = """
Puts the run on **one page** in S3, which the button opens, and a summary into the log. Runs whatever happened
before.
"""


def dataset_asset(pipeline: Pipeline) -> Asset:
    """The data set. Whoever updates it starts a run: `make trigger-asset`, another DAG, the REST API."""
    prefix = pipeline.dataset_prefix
    if not prefix.startswith("s3://") and pipeline.bucket:
        prefix = f"s3://{pipeline.bucket}/{prefix}"
    uri = prefix if prefix.startswith("s3://") else None
    return Asset(name=f"{pipeline.name}_dataset", uri=uri, group="dataset")


def schedule(pipeline: Pipeline) -> AssetOrTimeSchedule | list[Asset]:
    """By time and by data; unpausing the DAG never starts a run for a time that has passed."""
    asset = dataset_asset(pipeline)
    if pipeline.schedule is None:
        return [asset]
    weekly = CronTriggerTimetable(pipeline.schedule, timezone="UTC", run_immediately=timedelta(0))
    return AssetOrTimeSchedule(timetable=weekly, assets=[asset])


def retraining_dag(pipeline: Pipeline) -> DAG:
    """The DAG `<pipeline>_retraining`."""

    @dag(
        dag_id=pipeline.dag_id,
        description=pipeline.description,
        doc_md=DOC.format(
            name=pipeline.name,
            description=pipeline.description,
            search_space=", ".join(pipeline.tuning.search_space),
            rules=", ".join(pipeline.rules) or "none",
            endpoint=pipeline.endpoint_name,
            asset=dataset_asset(pipeline).name,
            rollback=pipeline.rollback_dag_id,
        ),
        schedule=schedule(pipeline),
        catchup=False,
        max_active_runs=1,
        params=form(pipeline),
        tags=["sagemaker", "retraining", pipeline.name],
        on_success_callback=notifiers(pipeline, "success"),
        on_failure_callback=notifiers(pipeline, "failure"),
        default_args=task_defaults(
            pipeline, first_wait=timedelta(seconds=30), longest_wait=timedelta(minutes=10)
        ),
    )
    def retraining() -> None:
        steps = Steps(pipeline)

        dataset = task(**QUIET)(steps.check_dataset)()
        plan = task(**QUIET, multiple_outputs=True)(steps.plan)(dataset)

        tune = TuningOperator(task_id="tune", config=plan["tuning"], doc_md=TUNE_DOC)
        hyperparameters = task(**QUIET, trigger_rule=NOTHING_FAILED)(steps.choose_hyperparameters)(
            plan["training"], tune.output
        )
        train = TrainingOperator(task_id="train", config=hyperparameters, doc_md=TRAIN_DOC)
        rules = DebuggerStatusOperator(
            task_id="debugger_status", pipeline=pipeline, training=train.output, doc_md=RULES_DOC
        )

        candidates = task(**QUIET, multiple_outputs=True)(steps.choose_candidates)(
            plan["evaluation"], plan["deployment"], train.output
        )
        rules >> candidates
        evaluate = EvaluationOperator(task_id="evaluate", config=candidates["request"], doc_md=EVALUATE_DOC)
        gate = task(steps.gate)(evaluate.output, rules.output)
        package = task(trigger_rule=NOTHING_FAILED)(steps.register)(
            plan=plan,
            tuning=tune.output,
            training=train.output,
            debugger=rules.output,
            candidates=candidates,
            evaluation=evaluate.output,
            gate=gate,
        )
        approve = ApprovalOperator(
            task_id="approve",
            pipeline=pipeline,
            plan=plan,
            gate=gate,
            package=package,
            debugger=rules.output,
            notifiers=notifiers(pipeline, "approval"),
            doc_md=APPROVE_DOC,
        )

        model = task(**QUIET)(steps.choose_model)(
            deployment=plan["deployment"],
            training=train.output,
            package=package,
            replaces=candidates["replaces"],
            approval=approve.output,
        )
        deploy = EndpointOperator(task_id="deploy", config=model, doc_md=DEPLOY_DOC)
        verification = task(steps.verify)(
            dataset=dataset,
            training=train.output,
            evaluation=evaluate.output,
            endpoint=deploy.output,
            package=package,
        )

        remembered = task(**QUIET, trigger_rule=NOTHING_FAILED)(steps.remember)(
            plan=plan,
            tuning=tune.output,
            training=train.output,
            evaluation=evaluate.output,
            approval=approve.output,
        )
        [approve, verification] >> remembered
        retired = task(trigger_rule=NOTHING_FAILED)(steps.retire)()
        remembered >> retired
        report = ReportOperator(
            task_id="report",
            pipeline=pipeline,
            results={
                "plan": plan,
                "dataset": dataset,
                "tuning": tune.output,
                "training": train.output,
                "debugger": rules.output,
                "candidates": candidates,
                "evaluation": evaluate.output,
                "gate": gate,
                "package": package,
                "approval": approve.output,
                "deployment": model,
                "endpoint": deploy.output,
                "verification": verification,
                "retired": retired,
            },
            doc_md=REPORT_DOC,
        )
        retired >> report
        report.as_teardown()  # runs whatever failed, and does not hide it

    return retraining()


for _pipeline in load_pipelines(Path(__file__).parent / "pipelines"):
    globals()[_pipeline.dag_id] = retraining_dag(_pipeline)
