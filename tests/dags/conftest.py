"""Fixtures for the DAGs: Airflow with a home of its own, and a local SageMaker with a small dataset."""

from __future__ import annotations

from tests.dags.airflow_home import DAGS, connected_runtime, keep_lineage, migrate, use_temporary_home

use_temporary_home()
keep_lineage()

import pytest  # noqa: E402
from airflow.dag_processing.dagbag import DagBag  # noqa: E402
from airflow.sdk import DAG  # noqa: E402

from tests.dags.copies import load_copy  # noqa: E402, F401
from tests.local_sagemaker.runtime_process import RuntimeProcess  # noqa: E402


@pytest.fixture(scope="session")
def dagbag() -> DagBag:
    """Every DAG of the repository, as Airflow loads them."""
    return DagBag(str(DAGS))


@pytest.fixture(scope="session")
def dag(dagbag: DagBag) -> DAG:
    return dagbag.dags["dog_breed_retraining"]


@pytest.fixture(scope="session")
def database() -> None:
    """The metadata database of the home."""
    migrate()


@pytest.fixture(scope="session")
def runtime() -> RuntimeProcess:
    return connected_runtime()
