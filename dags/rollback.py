"""One rollback DAG for every file in `pipelines/`: back to the previous model.

Started by hand only. How it happens is in `plugins/retraining/deployment/rollback.py`.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import retraining.airflow_version  # noqa: F401  # isort: skip (first: it refuses an older Airflow)

import airflow.providers.amazon.aws.operators.sagemaker  # as in retraining.py
import airflow.providers.standard.decorators.python  # noqa: F401
from airflow.sdk import DAG, Param, dag
from retraining.config.pipeline import Pipeline
from retraining.operators.endpoint import EndpointOperator
from retraining.operators.pipelines import dags_of
from retraining.reporting.notifications import notifiers
from retraining.tasks import RollbackTasks, task_defaults, typed_task

DOC = """
### {name}: back to the previous model

Trigger this DAG, and the endpoint `{endpoint}` serves the previous model again. Nothing has to be filled in.

1. **choose** finds the newest approved version in the registry's group `{group}` that was in service before.
2. **deploy** moves all traffic to it at once, without a gap; machines, alarms and data capture stay.
3. **verify** checks that this model serves and responds, and rejects the one that was replaced, with who,
   when and why.

A second run goes back one model further. A retraining run that is deploying is waited for; if it changes the
endpoint meanwhile, the rollback stops without doing anything.
"""

DEPLOY_DOC = """
Creates model and endpoint configuration, then **updates the endpoint**, all traffic at once. Fails if the
endpoint does not run them in the end.
"""


def rollback_dag(pipeline: Pipeline) -> DAG:
    """The DAG `<pipeline>_rollback`."""

    @dag(
        dag_id=pipeline.rollback_dag_id,
        description=f"Puts the previous model back into service at {pipeline.endpoint_name}.",
        doc_md=DOC.format(name=pipeline.name, endpoint=pipeline.endpoint_name, group=pipeline.package_group),
        schedule=None,
        catchup=False,
        max_active_runs=1,
        params={
            "reason": Param(
                None,
                type=["null", "string"],
                title="Reason",
                description="Why the current model is replaced; kept in the model registry.",
            )
        },
        tags=["sagemaker", "rollback", pipeline.name],
        on_failure_callback=notifiers(pipeline, "failure"),
        default_args=task_defaults(
            pipeline, first_wait=timedelta(seconds=10), longest_wait=timedelta(minutes=2)
        ),
    )
    def rollback() -> None:
        tasks = RollbackTasks(pipeline)
        chosen = typed_task(tasks.choose, multiple_outputs=True)()
        deploy = EndpointOperator(
            task_id="deploy",
            config=chosen["deployment"],
            alarms=chosen["alarms"],
            package=chosen["package"],
            replaces=chosen["replaces"],
            patience_seconds=0,  # alarms that are on already do not delay a rollback
            doc_md=DEPLOY_DOC,
        )
        typed_task(tasks.verify)(chosen, deploy.result)

    return rollback()


globals().update(dags_of(Path(__file__).parent / "pipelines", rollback_dag, rollback=True))
