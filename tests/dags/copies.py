"""The repository's DAGs with a pipeline made for a test, in a folder that Airflow takes for its own, and what
their runs left.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG

from demo.drills.world import write_dags

LoadCopy = Callable[[str, dict[str, Any]], dict[str, DAG]]


@pytest.fixture
def load_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadCopy:
    """The DAGs of a pipeline of this name: the dog breeds' file with changes."""
    bundle = {
        "name": "dags-folder",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(tmp_path)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))

    def load(name: str, changes: dict[str, Any]) -> dict[str, DAG]:
        write_dags(tmp_path, name, changes)
        bag = DagBag(str(tmp_path))
        assert bag.import_errors == {}
        return dict(bag.dags)

    return load


def states(run: DagRun) -> dict[str, str]:
    """The tasks' states."""
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def result(run: DagRun, task_id: str) -> Any:
    """What a task returned."""
    task = run.get_task_instance(task_id)
    assert task is not None
    return task.xcom_pull(task_ids=task_id)
