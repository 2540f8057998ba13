"""One retraining DAG for every file in `pipelines/`: check the data, plan, tune, train, deploy, verify.

This file says what happens and in which order. How it happens is in `plugins/retraining`, which the tasks
import when they run, so that parsing stays fast.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, dag, task
from retraining.form import form
from retraining.operators import DebuggerStatusOperator, EndpointOperator, TrainingOperator, TuningOperator
from retraining.pipeline import Pipeline, load_pipelines

Result = dict[str, Any]

DOC = """
### {name}: retrain, tune, train, deploy

{description}

1. **check_dataset** reads every picture in S3 and stops the run at the first sign that training would fail.
2. **plan** builds all requests to SageMaker and uploads the training code; its log shows all of them.
3. **tune** searches for hyperparameters ({search_space}).
4. **train** trains with the best of them, under Debugger rules ({rules}) and the profiler.
5. **debugger_status** shows what the rules found and stops the run where a rule's policy says so.
6. **deploy** puts the model into service at the endpoint `{endpoint}`.
7. **verify** sends test pictures to the endpoint and compares its answers with the model's accuracy.
8. **report** puts all results into one document.

A task that runs again finds the job that its first try started. The connection `aws_default` decides where
all of this happens. Defaults and limits: `dags/pipelines/{name}.yaml`.
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

DEPLOY_DOC = """
Creates model and endpoint configuration, then creates the **endpoint** or updates it without a gap. Fails if
another configuration than the requested one is in service in the end, as after a rollback.
"""


def schedule(pipeline: Pipeline) -> CronTriggerTimetable | None:
    """The pipeline's schedule; unpausing the DAG never starts a run for a time that has passed."""
    if pipeline.schedule is None:
        return None
    return CronTriggerTimetable(pipeline.schedule, timezone="UTC", run_immediately=timedelta(0))


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
        ),
        schedule=schedule(pipeline),
        catchup=False,
        max_active_runs=1,
        params=form(pipeline),
        tags=["sagemaker", "retraining", pipeline.name],
        default_args={
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": True,
            "max_retry_delay": timedelta(minutes=10),
        },
    )
    def retraining() -> None:
        @task
        def check_dataset(params: Any = None) -> Result:
            """Reads the **data set** in S3 before anything is paid for: structure, counts by class and split,
            and every picture decoded once. An error names the files and the fix.
            """
            from retraining.aws import Aws
            from retraining.dataset import check_dataset as check
            from retraining.form import RunSettings

            return check(pipeline, RunSettings.from_params(params), Aws())

        @task(multiple_outputs=True, show_return_value_in_logs=False)
        def plan(dataset: Result, params: Any = None, dag_run: Any = None) -> Result:
            """Builds **every request** of the run with the SageMaker SDK and uploads the training code. The
            log shows the requests; the names in them follow from the run, so that a retry finds its jobs.
            """
            from retraining.aws import Aws
            from retraining.form import RunSettings
            from retraining.plan import plan_run

            settings = RunSettings.from_params(params)
            return plan_run(pipeline, settings, dataset, Aws(), run_id=dag_run.run_id, when=dag_run.run_after)

        @task(trigger_rule="none_failed", show_return_value_in_logs=False)
        def choose_hyperparameters(training: Result, tuning: Result | None) -> Result:
            """Puts the **best trial's hyperparameters** into the training request; without tuning, those of
            the pipeline file stay.
            """
            from retraining.plan import training_request

            return training_request(training, tuning)

        @task(show_return_value_in_logs=False)
        def choose_model(deployment: Result, training: Result) -> Result:
            """Puts the **model** that the training job left in S3 into the deployment request."""
            from retraining.plan import deployment_request

            return deployment_request(deployment, training)

        @task
        def verify(dataset: Result, training: Result, endpoint: Result) -> Result:
            """Sends **test pictures** to the endpoint. Fails if one gets no answer, or if the share of right
            answers is not that of the trained model.
            """
            from retraining.aws import Aws
            from retraining.verify import verify_endpoint

            return verify_endpoint(pipeline, dataset, training, endpoint, Aws())

        @task(trigger_rule="none_failed")
        def report(
            *,
            plan: Result,
            dataset: Result,
            tuning: Result | None,
            training: Result,
            debugger: Result,
            verification: Result,
        ) -> Result:
            """Puts the run's **results** into one document: data, trials, metrics, rules, endpoint."""
            from retraining.report import run_report

            return run_report(
                plan=plan,
                dataset=dataset,
                tuning=tuning,
                training=training,
                debugger=debugger,
                verification=verification,
            )

        dataset = check_dataset()
        requests = plan(dataset)
        tune = TuningOperator(task_id="tune", config=requests["tuning"], doc_md=TUNE_DOC)
        chosen = choose_hyperparameters(requests["training"], tune.output)
        train = TrainingOperator(task_id="train", config=chosen, doc_md=TRAIN_DOC)
        rules = DebuggerStatusOperator(
            task_id="debugger_status", pipeline=pipeline, training=train.output, doc_md=RULES_DOC
        )
        model = choose_model(requests["deployment"], train.output)
        deploy = EndpointOperator(task_id="deploy", config=model, doc_md=DEPLOY_DOC)
        rules >> model
        verification = verify(dataset, train.output, deploy.output)
        report(
            plan=requests,
            dataset=dataset,
            tuning=tune.output,
            training=train.output,
            debugger=rules.output,
            verification=verification,
        )

    return retraining()


for _pipeline in load_pipelines(Path(__file__).parent / "pipelines"):
    globals()[_pipeline.dag_id] = retraining_dag(_pipeline)
