"""The app behind a run's pages in Airflow's API server, which the plugin `retraining_pages` mounts."""

from typing import Annotated

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Path
from fastapi.responses import RedirectResponse

from retraining.aws.clients import Aws
from retraining.aws.s3 import link
from retraining.runs.pages import KEY, TASKS


def make_app() -> FastAPI:
    """An app whose only route leads to a page of a run by a link that is signed at the click.

    It asks for what Airflow asks for to show an XCom of the DAG: 401 without a login, 403 without permission,
    404 where the run has no such page.
    """
    app = FastAPI(title="Pages of retraining runs", docs_url=None, redoc_url=None, openapi_url=None)
    allowed = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))

    @app.get("/dags/{dag_id}/runs/{run_id}/{page}", dependencies=[allowed])
    def page_of(dag_id: str, run_id: str, page: Annotated[str, Path()]) -> RedirectResponse:
        task = TASKS.get(page)
        uri = _pushed(dag_id, run_id, task) if task else None
        if uri is None:
            raise HTTPException(404, f"The run {run_id} of {dag_id} has no page {page!r}.")
        return RedirectResponse(link(Aws().s3, uri), 302, headers={"Cache-Control": "no-store"})

    return app


def _pushed(dag_id: str, run_id: str, task: str) -> str | None:
    """The URI that a task has left."""
    with create_session() as session:
        query = XComModel.get_many(run_id=run_id, key=KEY, task_ids=task, dag_ids=dag_id)
        row = session.scalars(query.with_only_columns(XComModel)).first()
        return None if row is None else str(XComModel.deserialize_value(row))
