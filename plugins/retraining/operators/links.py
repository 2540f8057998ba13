"""Buttons under a task's *Details*."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey

from retraining.runs.pages import address


class ConsoleLink(BaseOperatorLink):
    """The job or endpoint in the AWS console; no link for a local SageMaker."""

    name = "SageMaker console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        return getattr(operator, "console_url", None) or ""


class _PageLink(BaseOperatorLink):
    """An address in Airflow that leads to a page in S3 by a link signed at the click."""

    page: str

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        from airflow.sdk.configuration import conf

        base: str = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/")
        return base + address(ti_key.dag_id, ti_key.run_id, self.page)


class RunReportLink(_PageLink):
    """The run's report."""

    name = "Run report"
    page = "report"


class DatasetReportLink(_PageLink):
    """The page about the dataset, also of one that cannot be used."""

    name = "Dataset report"
    page = "dataset"


class ProfilerReportLink(_PageLink):
    """The profiler report of the run's training job."""

    name = "Profiler report"
    page = "profiler"
