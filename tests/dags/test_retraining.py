"""The DAGs as Airflow loads them: structure, form, documentation, and what importing costs."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.operators import sagemaker
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerBaseOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from airflow.serialization.serialized_objects import DagSerialization
from retraining.config.pipeline import load_pipelines
from retraining.operators.endpoint import EndpointOperator
from retraining.operators.evaluation import EvaluationOperator
from retraining.operators.training import TrainingOperator
from retraining.operators.tuning import TuningOperator

from tests.dags.airflow_home import DAGS, PLUGINS

HEAVY = {"sagemaker", "numpy", "pandas", "matplotlib", "torch", "PIL", "imagehash"}

ORDER = [
    "check_dataset",
    "plan",
    "tune",
    "train",
    "debugger_status",
    "evaluate",
    "gate",
    "register",
    "approve",
    "deploy",
    "verify",
    "remember",
    "retire",
    "report",
]


def test_every_pipeline_file_is_a_dag(dagbag: DagBag) -> None:
    assert dagbag.import_errors == {}
    pipelines = load_pipelines(DAGS / "pipelines")
    assert set(dagbag.dags) == {name for p in pipelines for name in (p.dag_id, p.rollback_dag_id)}


def test_tasks_run_in_this_order(dag: DAG) -> None:
    assert [task.task_id for task in dag.topological_sort()] == ORDER  # type: ignore[no-untyped-call]
    for before, after in itertools.pairwise(ORDER):
        assert before in dag.get_task(after).get_flat_relative_ids(upstream=True)


@pytest.mark.parametrize(
    ("task_id", "operator", "name"),
    [
        ("tune", TuningOperator, "SageMakerTuningOperator"),
        ("train", TrainingOperator, "SageMakerTrainingOperator"),
        ("evaluate", EvaluationOperator, "SageMakerProcessingOperator"),
        ("deploy", EndpointOperator, "SageMakerEndpointOperator"),
    ],
)
def test_jobs_run_by_the_providers_operators_over_one_connection(
    dag: DAG, task_id: str, operator: type[SageMakerBaseOperator], name: str
) -> None:
    task = dag.get_task(task_id)
    assert isinstance(task, operator)
    assert getattr(sagemaker, name) in type(task).__bases__
    assert task.operator_name == name
    assert task.aws_conn_id == "aws_default"


def test_the_report_runs_whatever_happened_and_hides_no_failure(dag: DAG) -> None:
    report = dag.get_task("report")
    assert report.is_teardown
    assert report.on_failure_fail_dagrun
    assert {task.task_id for task in dag.tasks} - {"report"} == report.get_flat_relative_ids(upstream=True)


def test_an_update_of_the_dataset_starts_a_run_too(dag: DAG) -> None:
    serialised = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assets = [key.name for key, _ in serialised.timetable.asset_condition.iter_assets()]
    assert assets == ["dog_breed_dataset"]


def test_weekly_one_at_a_time_with_retries(dag: DAG) -> None:
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert {"sagemaker", "retraining", "dog_breed"} <= dag.tags
    for task in dag.tasks:
        assert task.retries == 2
        assert task.retry_exponential_backoff


def test_unpausing_starts_no_run_for_the_past(dag: DAG) -> None:
    from airflow.timetables.base import TimeRestriction

    serialised = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    first = serialised.timetable.next_dagrun_info_v2(
        last_dagrun_info=None, restriction=TimeRestriction(None, None, catchup=False)
    )
    assert first is not None
    assert first.run_after > datetime.now(UTC)


def test_everything_is_documented(dag: DAG) -> None:
    assert dag.doc_md
    assert "check_dataset" in dag.doc_md
    for task in dag.tasks:
        assert task.doc_md, task.task_id
        assert not task.doc_md.lstrip("\n").startswith(" "), f"{task.task_id}: markdown reads this as code"


def test_the_form_has_descriptions_and_limits(dag: DAG) -> None:
    expected = {
        "max_jobs",
        "max_parallel_jobs",
        "epochs_min",
        "epochs_max",
        "image_size",
        "instance_type",
        "skip_tuning",
        "arch",
        "trainable",
        "force",
        "approval",
        "max_cost_usd",
        "spot",
        "deployment_strategy",
    }
    assert expected <= dag.params.keys()
    for name in dag.params:
        assert dag.params.get_param(name).description, name
    dag.params.validate()


def test_the_dag_survives_serialisation(dag: DAG) -> None:
    text = json.dumps(DagSerialization.to_dict(dag))
    again = DagSerialization.from_dict(json.loads(text))
    assert sorted(again.task_ids) == sorted(ORDER)
    assert again.get_task("train").operator_name == "SageMakerTrainingOperator"
    assert [link.name for link in again.get_task("train").operator_extra_links] == ["SageMaker console"]
    assert [link.name for link in again.get_task("debugger_status").operator_extra_links] == [
        "Profiler report"
    ]


def test_a_parse_brings_nothing_heavy_beyond_the_provider() -> None:
    script = (
        "import sys\n"
        "import airflow.providers.amazon.aws.operators.sagemaker\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "before = set(sys.modules)\n"
        "assert not DagBag(sys.argv[1]).import_errors\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})\n"
    )
    command = [sys.executable, "-c", script, str(DAGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_readme_and_dag_list_the_same_tasks(dag: DAG) -> None:
    for text in ((DAGS.parent / "README.md").read_text(), dag.doc_md or ""):
        rows = re.findall(r"^\| [*`]+(\w+)[*`]+ \|", text, re.MULTILINE)
        assert [name for name in rows if name in ORDER] == ORDER


def test_a_key_that_no_task_returns_is_a_type_error(tmp_path: Path) -> None:
    """mypy checks the wiring of the DAGs: of a copy with four faults, each is named with its line."""
    wrong = {
        'config=plan["tuning"]': 'config=plan["tunning"]',
        'artifact=evaluate.result["challenger"]': 'artifact=evaluate.result["champion"]',
        '"gate": gate,': '"gate": plan,',
        "typed_task(tasks.gate)(evaluate.result, rules.result)": "typed_task(tasks.gate)(evaluate.result)",
    }
    lines = (DAGS / "retraining.py").read_text()
    for right, fault in wrong.items():
        assert lines.count(right) == 1, right
        lines = lines.replace(right, fault)
    copy = tmp_path / "wrong_dag.py"
    copy.write_text(lines)
    command = [sys.executable, "-m", "mypy", "--config-file", str(DAGS.parent / "pyproject.toml"), str(copy)]
    done = subprocess.run(command, cwd=DAGS.parent, capture_output=True, text=True, check=False)
    faults = (
        '"tunning" is not a valid TypedDict key',
        'Argument "artifact"',
        'item "gate"',
        "Too few arguments",
    )
    for fault in faults:
        assert fault in done.stdout, done.stdout + done.stderr


@pytest.fixture
def with_a_wrong_file(tmp_path: Path) -> Path:
    """The repository's DAGs with a second pipeline, whose file has a mistake."""
    folder = tmp_path / "dags"
    shutil.copytree(DAGS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    content = (folder / "pipelines" / "dog_breed.yaml").read_text()
    wrong = content.replace("name: dog_breed", "name: birds").replace("  max_jobs:", "  max_job:")
    (folder / "pipelines" / "birds.yaml").write_text(wrong)
    return folder


MISTAKE = "unknown key 'tuning.max_job' (did you mean 'max_jobs'?)"


def test_a_wrong_pipeline_file_shows_its_mistake_and_leaves_the_others(with_a_wrong_file: Path) -> None:
    bag = DagBag(str(with_a_wrong_file))
    assert bag.import_errors == {}
    assert set(bag.dags) == {
        f"{name}_{kind}" for name in ("dog_breed", "birds") for kind in ("retraining", "rollback")
    }
    assert len(bag.dags["dog_breed_retraining"].tasks) == len(ORDER)
    for kind in ("retraining", "rollback"):
        dag = bag.dags[f"birds_{kind}"]
        assert MISTAKE in str(dag.description)
        assert MISTAKE in str(dag.doc_md)
        assert dag.schedule is None
        assert [task.task_id for task in dag.tasks] == ["pipeline_file"]
        with pytest.raises(AirflowFailException, match=re.escape(MISTAKE)):
            dag.tasks[0].python_callable()


@pytest.mark.parametrize(
    ("dag_id", "task_id", "dags"),
    [
        ("dog_breed_retraining", "train", ["dog_breed_retraining"]),
        ("birds_retraining", "pipeline_file", ["birds_retraining"]),
        ("birds_retraining", "train", []),
    ],
)
def test_a_task_reads_its_own_pipeline_alone(
    with_a_wrong_file: Path, monkeypatch: pytest.MonkeyPatch, dag_id: str, task_id: str, dags: list[str]
) -> None:
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", task_id)
    bag = DagBag(str(with_a_wrong_file / "retraining.py"))
    assert list(bag.dags) == dags
    if not dags:
        [message] = bag.import_errors.values()
        assert MISTAKE in message


def test_airflow_does_not_take_the_library_for_plugins() -> None:
    from airflow._shared.module_loading import find_path_from_directory

    found = [Path(path) for path in find_path_from_directory(PLUGINS, ".airflowignore")]
    assert not [path for path in found if "retraining" in path.parts]
