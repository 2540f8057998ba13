"""Refuses an Airflow that is too old, when it is imported; DAG files import it first."""

from __future__ import annotations

from airflow import __version__
from packaging.version import Version

OLDEST_AIRFLOW = "3.2.1"
"""The oldest version that has what the DAG files use; `make test-airflow-versions` tries it."""

if Version(__version__) < Version(OLDEST_AIRFLOW):
    raise ImportError(
        f"The retraining pipeline needs Airflow {OLDEST_AIRFLOW} or later, and this is {__version__}: "
        "update Airflow (managed Airflow has 3.2.1 and 3.3.1)."
    )
