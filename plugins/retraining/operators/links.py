"""Buttons under a task's *Details*."""

from __future__ import annotations

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey


class _Link(BaseOperatorLink):
    """Opens the address that an attribute of the operator holds once the task has run."""

    attribute: str

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002
        return getattr(operator, self.attribute, None) or ""


class ConsoleLink(_Link):
    """The job or endpoint in the AWS console; no link for a local SageMaker."""

    name = "SageMaker console"
    attribute = "console_url"


class ProfilerReportLink(_Link):
    """The profiler report of the run's training job."""

    name = "Profiler report"
    attribute = "report_url"


class RunReportLink(_Link):
    """The run's report."""

    name = "Run report"
    attribute = "report_url"
