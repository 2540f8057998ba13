"""One DAG for every pipeline file; that of a file that cannot be used shows why and does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path

from airflow.sdk import DAG, get_parsing_context, task
from airflow.sdk.exceptions import AirflowFailException

from retraining.config.pipeline import BrokenPipeline, Pipeline, PipelineFileError, load_pipelines

TASK = "pipeline_file"

DOC = """
### The file of this pipeline cannot be used

{error}

Correct it: the DAG is back within a minute. Other pipelines go on. Runs that were going on stop here: their
next task fails with this text.
"""


def dags_of(folder: Path, make: Callable[[Pipeline], DAG], *, rollback: bool = False) -> Mapping[str, DAG]:
    """The DAGs by their ids: `make`'s for good files. A task's process gets its own DAG alone.

    Raises PipelineFileError in the process of a task whose pipeline's file has become wrong.
    """
    id_of = attrgetter("rollback_dag_id" if rollback else "dag_id")
    parsed_for = get_parsing_context()
    dags = {}
    wanted = parsed_for.dag_id.rpartition("_")[0] if parsed_for.dag_id else None
    for pipeline in load_pipelines(folder, wanted):
        dag_id: str = id_of(pipeline)
        if parsed_for.dag_id not in (None, dag_id):
            continue
        if isinstance(pipeline, Pipeline):
            dags[dag_id] = make(pipeline)
        elif parsed_for.task_id in (None, TASK):
            dags[dag_id] = _stand_in(dag_id, pipeline)
        else:
            raise PipelineFileError(pipeline.error)
    return dags


def _stand_in(dag_id: str, broken: BrokenPipeline) -> DAG:
    """The DAG of a file that cannot be used. Its only task fails with the reason."""
    with DAG(
        dag_id,
        dag_display_name=f"{dag_id} (wrong pipeline file)",
        description=broken.error,
        doc_md=DOC.format(error=broken.error),
        schedule=None,
        catchup=False,
        tags=["wrong pipeline file", broken.name],
    ) as dag:

        @task(task_id=TASK, retries=0)
        def pipeline_file() -> None:
            raise AirflowFailException(broken.error)

        pipeline_file()
    return dag
