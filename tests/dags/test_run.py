"""Whole runs of the DAG, from pictures in S3 to the endpoint's answers, on a local SageMaker."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from PIL import Image, ImageDraw

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess

CLASSES = {"001.Disc": "ellipse", "002.Square": "rectangle"}
SMALL = {"arch": "squeezenet1_1", "image_size": 32, "max_jobs": 2, "max_parallel_jobs": 1}

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


def shape(kind: str, seed: int) -> bytes:
    """A shape in a colour and at a place of its own."""
    colour = (40 + seed * 53 % 200, 40 + seed * 97 % 200, 40 + seed * 151 % 200)
    image = Image.new("RGB", (48, 48), (230, 230, 225))
    left, top = seed * 7 % 16, seed * 11 % 16
    getattr(ImageDraw.Draw(image), kind)((left, top, left + 28, top + 28), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sagemaker(runtime: RuntimeProcess, database: None) -> Iterator[Any]:
    """SageMaker's client, with a data set of two shapes in S3."""
    s3 = runtime.client("s3")
    for place, (split, count) in enumerate({"train": 16, "valid": 6, "test": 6}.items()):
        for label, kind in CLASSES.items():
            for number in range(count):
                key = f"datasets/dog_breed/{split}/{label}/{number}.jpg"
                s3.put_object(Bucket=BUCKET, Key=key, Body=shape(kind, 100 * place + number))
    client = runtime.client("sagemaker")
    yield client
    for endpoint in client.list_endpoints()["Endpoints"]:
        client.delete_endpoint(EndpointName=endpoint["EndpointName"])


def run(dag: DAG, **params: Any) -> DagRun:
    finished: DagRun = dag.test(run_conf={**SMALL, **params})
    return finished


def states(run: DagRun) -> dict[str, str]:
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


def result(run: DagRun, task_id: str) -> Any:
    task = run.get_task_instance(task_id)
    assert task is not None
    return task.xcom_pull(task_ids=task_id)


def test_a_run_tunes_trains_deploys_and_the_next_one_updates(dag: DAG, sagemaker: Any) -> None:
    first = run(dag, epochs_min=1, epochs_max=2)
    assert set(states(first).values()) == {"success"}
    report = result(first, "report")

    name = report["run_name"]
    assert report["dataset"]["images"] == {"train": 32, "valid": 12, "test": 12}
    assert len(report["tuning"]["trials"]) == 2
    objectives = [trial["objective"] for trial in report["tuning"]["trials"]]
    assert report["tuning"]["best"]["objective"] == max(objectives)

    best = report["tuning"]["best"]["hyperparameters"]
    assert best.keys() == {"lr", "batch-size", "epochs", "momentum"}
    trained = sagemaker.describe_training_job(TrainingJobName=report["training"]["job"])
    assert best.items() <= trained["HyperParameters"].items()
    assert report["training"]["job"] == name
    assert report["test_accuracy"] == report["training"]["metrics"]["test:accuracy"]

    endpoint = report["endpoint"]
    assert endpoint["images"] == 12
    assert endpoint["accuracy"] == pytest.approx(report["test_accuracy"], abs=1e-3)
    assert {answer["class"] for answer in endpoint["predictions"]} == set(CLASSES)
    assert sagemaker.describe_endpoint(EndpointName="dog-breed")["EndpointConfigName"] == name

    second = run(dag, skip_tuning=True, epochs_min=1, epochs_max=1)
    assert states(second)["tune"] == "skipped"
    assert {state for task, state in states(second).items() if task != "tune"} == {"success"}
    report = result(second, "report")
    assert report["tuning"] is None
    assert report["hyperparameters"]["lr"] == "0.05"
    assert result(second, "deploy")["created"] is False
    described = sagemaker.describe_endpoint(EndpointName="dog-breed")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == (
        "InService",
        report["run_name"],
    )


@pytest.mark.parametrize(
    "params", [{"epochs_min": 5, "epochs_max": 2}, {"dataset_prefix": "no/such/place"}, {"bucket": "nowhere"}]
)
def test_wrong_input_ends_the_run_before_any_job(dag: DAG, sagemaker: Any, params: dict[str, Any]) -> None:
    before = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    stopped = run(dag, **params)
    assert stopped.state == "failed"
    assert states(stopped)["check_dataset"] == "failed"
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == before
