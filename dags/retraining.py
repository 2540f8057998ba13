"""One retraining DAG for every file in `pipelines/`: from the data in S3 to the model in service.

This file says what happens and in which order. How it happens is in `plugins/retraining`, most of which the
tasks import when they run, so that parsing stays fast.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import retraining.airflow_version  # noqa: F401  # isort: skip (first: it refuses an older Airflow)

# Before the DAG processor forks a process for each parse, it imports what DAG files import of Airflow. So the
# bases of our operators and tasks, named here, cost a parse nothing.
import airflow.providers.amazon.aws.operators.sagemaker
import airflow.providers.standard.decorators.python
import airflow.providers.standard.operators.hitl  # noqa: F401
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, TaskGroup, dag
from retraining.config.params import form
from retraining.config.pipeline import Pipeline
from retraining.operators.approval import ApprovalOperator
from retraining.operators.dataset import CheckDatasetOperator
from retraining.operators.debugger_status import DebuggerStatusOperator
from retraining.operators.endpoint import EndpointOperator
from retraining.operators.evaluation import EvaluationOperator
from retraining.operators.pipelines import dags_of
from retraining.operators.report import ReportOperator
from retraining.operators.training import TrainingOperator
from retraining.operators.tuning import TuningOperator
from retraining.reporting.notifications import notifiers
from retraining.runs.results import RunResults
from retraining.tasks import RetrainingTasks, in_order, task_defaults, typed_task

# For tasks that run although one before them was skipped; they are skipped if all of those were.
NOTHING_FAILED = "none_failed_min_one_success"

DOC = """
### {name}: retrain, compare, deploy

{description}

| task | what it does |
|---|---|
| **check_dataset** | reads what is new in S3: damage, duplicates, leakage between splits, changes by class |
| **plan** | builds all requests to SageMaker and estimates their cost; ends the run here if nothing changed |
| **tune** | searches for hyperparameters ({search_space}), starting from the last search |
| **train** | trains with the best of them, under Debugger rules ({rules}) and the profiler |
| **debugger_status** | shows what the rules found and stops the run where a rule's policy says so |
| **evaluate** | compares the new model (challenger) with the one in service (champion) |
| **gate** | decides, in a sentence with its numbers, whether the challenger may go live |
| **register** | puts the model into the registry, approved or rejected, with metrics and lineage |
| **approve** | asks a person, if the form or the pipeline file says so |
| **deploy** | shifts the traffic of `{endpoint}` to the new model under alarms that roll back |
| **verify** | compares the endpoint with the evaluation; restores the previous model if they differ |
| **remember** | keeps what the next run compares itself with |
| **retire** | deletes old models, configurations and run folders that nothing uses |
| **report** | puts all of it on one page, whatever happened |

A task that runs again finds the job that its first attempt started. The connection `aws_default` decides
where all of this happens. Settings: `dags/pipelines/{name}.yaml`. Runs start by schedule, by hand, and when
the asset `{asset}` is updated. The DAG `{rollback}` goes back to the previous model.
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
Runs the **processing job** that shows both models the same test images: accuracy, recall of each class,
calibration, latency, and intervals for the differences. Killing the task stops the job.
"""

APPROVE_DOC = """
Shows the comparison and waits for **Approve** or **Reject** under *Required actions*, if the form or the
pipeline file asks for it. No response in time is a no. Without approval the champion stays.
"""

DEPLOY_DOC = """
Creates model and endpoint configuration, then creates the **endpoint** or shifts its traffic step by step,
while alarms on errors and latency watch. Skipped where the gate or a person said no. Fails if another
configuration than the requested one is in service in the end, as after a rollback.
"""

REPORT_DOC = """
Puts the run on **one page** in S3, which the button opens, and a summary into the log. Runs whatever happened
before.
"""


def dataset_asset(pipeline: Pipeline) -> Asset:
    """The dataset. Whoever updates it starts a run: `make trigger-asset`, another DAG, the REST API."""
    prefix = pipeline.dataset_prefix
    if not prefix.startswith("s3://") and pipeline.bucket:
        prefix = f"s3://{pipeline.bucket}/{prefix}"
    if prefix.startswith("s3://"):
        return Asset(name=pipeline.asset_name, uri=prefix, group="dataset")
    return Asset(name=pipeline.asset_name, group="dataset")


def schedule(pipeline: Pipeline) -> AssetOrTimeSchedule | list[Asset]:
    """By time and by data; unpausing the DAG never starts a run for a time that has passed."""
    asset = dataset_asset(pipeline)
    if pipeline.schedule is None:
        return [asset]
    weekly = CronTriggerTimetable(pipeline.schedule, timezone="UTC", run_immediately=timedelta(0))
    return AssetOrTimeSchedule(timetable=weekly, assets=[asset])


def named_schedule(pipeline: Pipeline) -> list[str]:
    """The schedule as a tag: beside an asset, Airflow's UI shows no time."""
    return [pipeline.schedule.removeprefix("@")] if pipeline.schedule else []


def part(name: str) -> TaskGroup:
    """A part of the run in the graph; the tasks' ids stay as they are."""
    return TaskGroup(name, prefix_group_id=False)


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
        tags=["sagemaker", "retraining", pipeline.name, *named_schedule(pipeline)],
        on_success_callback=notifiers(pipeline, "success"),
        on_failure_callback=notifiers(pipeline, "failure"),
        default_args=task_defaults(
            pipeline, first_wait=timedelta(seconds=30), longest_wait=timedelta(minutes=10)
        ),
    )
    def retraining() -> None:
        tasks = RetrainingTasks(pipeline)

        with part("data"):
            dataset = typed_task(
                tasks.check_dataset, operator=CheckDatasetOperator, show_return_value_in_logs=False
            )()
            plan = typed_task(tasks.plan, multiple_outputs=True, show_return_value_in_logs=False)(dataset)
        keep = pipeline.job.keep_running_on_kill
        with part("training"):
            tune = TuningOperator(
                task_id="tune", config=plan["tuning"], keep_running_on_kill=keep, doc_md=TUNE_DOC
            )
            train = TrainingOperator(
                task_id="train",
                config=plan["training"],
                tuning=tune.result,
                keep_running_on_kill=keep,
                trigger_rule=NOTHING_FAILED,
                doc_md=TRAIN_DOC,
            )
            rules = DebuggerStatusOperator(
                task_id="debugger_status", pipeline=pipeline, training=train.result, doc_md=RULES_DOC
            )
        with part("decision"):
            evaluate = EvaluationOperator(
                task_id="evaluate",
                config=plan["evaluation"],
                training=train.result,
                endpoint=pipeline.endpoint_name,
                package_group=pipeline.package_group,
                keep_running_on_kill=keep,
                doc_md=EVALUATE_DOC,
            )
            rules >> evaluate
            gate = typed_task(tasks.gate)(evaluate.result, rules.result)
            # Not with `dataset`: these results are for tasks that are skipped if `plan` skips the run.
            results: RunResults = {
                "plan": plan,
                "tuning": tune.result,
                "training": train.result,
                "debugger": rules.result,
                "evaluation": evaluate.result,
                "gate": gate,
            }
            package = typed_task(tasks.register, multiple_outputs=True, trigger_rule=NOTHING_FAILED)(results)
            approve = ApprovalOperator(
                task_id="approve",
                pipeline=pipeline,
                plan=plan,
                gate=gate,
                package=package,
                debugger=rules.result,
                notifiers=notifiers(pipeline, "approval"),
                doc_md=APPROVE_DOC,
            )
        with part("deployment"):
            deploy = EndpointOperator(
                task_id="deploy",
                config=plan["deployment"],
                artifact=evaluate.result["challenger"],
                alarms=plan["alarms"],
                package=package["arn"],
                replaces=evaluate.result["replaces"],
                approval=approve.result,
                doc_md=DEPLOY_DOC,
            )
            verification = typed_task(tasks.verify)(
                {
                    "training": train.result,
                    "evaluation": evaluate.result,
                    "package": package,
                    "endpoint": deploy.result,
                }
            )
        results = {**results, "package": package, "approval": approve.result}

        with part("wrap_up"):
            remember = typed_task(
                tasks.remember, trigger_rule=NOTHING_FAILED, show_return_value_in_logs=False
            )(results)
            retired = typed_task(tasks.retire, trigger_rule=NOTHING_FAILED)()
            in_order(verification, remember, retired)
            report = ReportOperator(
                task_id="report",
                pipeline=pipeline,
                results={
                    **results,
                    "dataset": dataset,
                    "endpoint": deploy.result,
                    "verification": verification,
                    "retired": retired,
                },
                doc_md=REPORT_DOC,
            )
            report.as_teardown(on_failure_fail_dagrun=True)  # runs whatever failed, and fails if the run did

    return retraining()


globals().update(dags_of(Path(__file__).parent / "pipelines", retraining_dag))
