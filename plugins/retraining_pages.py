"""An Airflow plugin: addresses of a run's pages that do not expire.

A page lies in S3, and a link to it is signed for seven days at most. So buttons lead here, and a link is
signed at the click, for whoever may see the run. Every Airflow process imports this file, and only the API
server asks for the app: so what it needs is imported then.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RetrainingPages(AirflowPlugin):
    """Mounts the pages' app, which Airflow does without authentication: its route asks for permission."""

    name = "retraining_pages"

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The app and where it is mounted."""
        from retraining.reporting.addresses import make_app
        from retraining.runs.pages import PREFIX

        return [{"app": make_app(), "url_prefix": PREFIX, "name": "Pages of retraining runs"}]
