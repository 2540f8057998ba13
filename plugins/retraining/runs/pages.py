"""Pages of a run: each task that has one leaves its URI, and an address in Airflow leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from airflow.sdk import Context

PREFIX: Final = "/retraining"
"""Path below which the plugin `retraining_pages` answers."""
KEY: Final = "page"
"""Key of the XCom with the URI."""
TASKS: Final = {"report": "report", "dataset": "check_dataset", "profiler": "debugger_status"}
"""The tasks by the names of their pages."""


def leave_page(context: Context, uri: str | None) -> None:
    """Leave the URI of the task's page; None is no page."""
    if uri is not None:
        context["ti"].xcom_push(key=KEY, value=uri)


def address(dag_id: str, run_id: str, page: str) -> str:
    """The path of a page in Airflow, without the path that Airflow itself may have."""
    return f"{PREFIX}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}/{page}"
