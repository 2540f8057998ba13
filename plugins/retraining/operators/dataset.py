"""The check of the dataset."""

from __future__ import annotations

from retraining.operators.links import DatasetReportLink
from retraining.runs.lineage import TracedPythonOperator


class CheckDatasetOperator(TracedPythonOperator):
    """Airflow's `@task`, with a button for the page about the dataset."""

    operator_extra_links = (DatasetReportLink(),)
