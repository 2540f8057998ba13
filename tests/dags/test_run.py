"""Whole runs of the DAG, from images in S3 to the endpoint's responses, on a local SageMaker.

The pipelines are the dog breeds' with another gate: what these small networks learn is left to chance, and a
test's outcome must not be.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from PIL import Image, ImageDraw

from tests.dags.airflow_home import BUCKET, keep_lineage
from tests.dags.copies import LoadCopy, result, states
from tests.local_sagemaker.runtime_process import RuntimeProcess

CLASSES = {"001.Disc": "ellipse", "002.Square": "rectangle"}
SMALL = {"arch": "squeezenet1_1", "image_size": 32, "max_jobs": 2, "max_parallel_jobs": 1, "bake_seconds": 1}
ANY_MODEL = {"min_improvement": -1.0, "min_accuracy": 0.0, "max_class_regression": 1.0}
LARGEST_RESULT = 32_768  # bytes
NO_MODEL = {"min_accuracy": 1.0}

MakePipeline = Callable[[str, dict[str, Any]], DAG]

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
    client = runtime.client("sagemaker")
    yield client
    for endpoint in client.list_endpoints()["Endpoints"]:
        client.delete_endpoint(EndpointName=endpoint["EndpointName"])


@pytest.fixture
def make_pipeline(load_copy: LoadCopy, runtime: RuntimeProcess) -> MakePipeline:
    """The retraining DAG of a pipeline with a gate of its own, and its dataset of two shapes in S3."""
    s3 = runtime.client("s3")

    def make(name: str, gate: dict[str, Any]) -> DAG:
        for place, (split, count) in enumerate({"train": 16, "valid": 6, "test": 6}.items()):
            for label, kind in CLASSES.items():
                for number in range(count):
                    key = f"datasets/{name}/{split}/{label}/{number}.jpg"
                    s3.put_object(Bucket=BUCKET, Key=key, Body=shape(kind, 100 * place + number))
        return load_copy(name, {"gate": gate})[f"{name}_retraining"]

    return make


def lineage(dag_id: str) -> dict[str, tuple[set[str], set[str]]]:
    """What the tasks of a DAG have read and written, by task, from what OpenLineage sent."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for event in map(json.loads, keep_lineage().read_text().splitlines()):
        name = event["job"]["name"]
        if event["eventType"] == "COMPLETE" and name.startswith(f"{dag_id}."):
            reads, writes = found.setdefault(name.removeprefix(f"{dag_id}."), (set(), set()))
            reads.update(f"{one['namespace']} {one['name']}" for one in event["inputs"])
            writes.update(f"{one['namespace']} {one['name']}" for one in event["outputs"])
    return found


def check_lineage(dag_id: str, name: str) -> None:
    """The dataset, the model, its package and the endpoint are inputs and outputs of the run `name`."""
    traced = lineage(dag_id)
    bucket, service = f"s3://{BUCKET}", "arn:aws:sagemaker:us-east-1:123456789012"
    channels = {f"{bucket} datasets/any_model/{split}" for split in ("train", "valid", "test")}
    archive = f"{bucket} retraining/any_model/{name}/training/{name}/output/model.tar.gz"
    assert traced["check_dataset"][0] == {f"{bucket} datasets/any_model"}
    assert channels <= traced["tune"][0]
    assert channels <= traced["train"][0]
    assert traced["train"][1] == {archive}
    assert archive in traced["evaluate"][0]
    assert archive in traced["register"][0]
    assert traced["register"][1] == traced["deploy"][0] == {f"{service} model-package/any-model/1"}
    assert traced["deploy"][1] == {f"{service} endpoint/any-model"}


def run(dag: DAG, **params: Any) -> DagRun:
    finished: DagRun = dag.test(run_conf={**SMALL, **params})
    return finished


def test_a_model_goes_live_the_next_one_replaces_it_and_a_run_of_nothing_new_is_skipped(
    make_pipeline: MakePipeline, sagemaker: Any, runtime: RuntimeProcess
) -> None:
    dag, s3 = make_pipeline("any_model", ANY_MODEL), runtime.client("s3")
    first = run(dag, epochs_min=1, epochs_max=2)
    assert set(states(first).values()) == {"success"}
    report = result(first, "report")
    assert report["outcome"]["verdict"] == "live"

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
    assert result(first, "gate")["figures"]["challenger"]["accuracy"] == pytest.approx(
        report["test_accuracy"], abs=1e-3
    )

    verification = report["verification"]
    assert (verification["images"], verification["agreement"]) == (12, 1.0)
    assert {prediction["class"] for prediction in verification["predictions"]} == set(CLASSES)
    assert sagemaker.describe_endpoint(EndpointName="any-model")["EndpointConfigName"] == name
    assert statuses(sagemaker) == ["Approved"]

    check_lineage(dag.dag_id, name)
    for task in states(first):  # what tasks return is small, and JSON as it is: no times but in ISO 8601
        assert len(json.dumps(result(first, task))) < LARGEST_RESULT, task

    second = run(dag, skip_tuning=True, epochs_min=1, epochs_max=1)
    assert states(second)["tune"] == "skipped"
    assert {state for task, state in states(second).items() if task != "tune"} == {"success"}
    report = result(second, "report")
    assert report["tuning"] is None
    assert report["hyperparameters"]["lr"] == best["lr"]
    assert result(second, "evaluate")["champion"]["config"] == name
    assert result(second, "deploy")["previous"] == name
    described = sagemaker.describe_endpoint(EndpointName="any-model")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == (
        "InService",
        report["run_name"],
    )
    assert statuses(sagemaker) == ["Approved", "Approved"]

    page = {"Bucket": BUCKET, "Key": f"retraining/any_model/{report['run_name']}/report.html"}
    s3.delete_object(**page)  # as if the run had ended before its page was written
    third = run(dag, skip_tuning=True, epochs_min=1, epochs_max=1)
    assert third.state == "success"
    assert {state for task, state in states(third).items() if task not in {"check_dataset", "report"}} == {
        "skipped"
    }
    assert result(third, "report")["outcome"]["verdict"] == "unchanged"
    written = s3.get_object(**page)["Body"].read().decode()
    assert report["training"]["job"] in written
    assert "New model live" in written


def test_a_model_that_the_gate_rejects_is_registered_and_not_deployed(
    make_pipeline: MakePipeline, sagemaker: Any
) -> None:
    finished = run(
        make_pipeline("no_model", NO_MODEL), skip_tuning=True, epochs_min=1, epochs_max=1, trainable="head"
    )
    assert finished.state == "success"
    assert states(finished)["deploy"] == states(finished)["verify"] == "skipped"
    assert states(finished)["remember"] == "success"
    report = result(finished, "report")
    assert report["outcome"]["verdict"] == "kept"
    assert "no-model" not in [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]]
    assert statuses(sagemaker, "no-model") == ["Rejected"]


@pytest.mark.parametrize(
    "params", [{"epochs_min": 5, "epochs_max": 2}, {"dataset_prefix": "no/such/place"}, {"bucket": "nowhere"}]
)
def test_wrong_input_ends_the_run_before_any_job(dag: DAG, sagemaker: Any, params: dict[str, Any]) -> None:
    before = sagemaker.list_training_jobs()["TrainingJobSummaries"]
    stopped = run(dag, **params)
    assert stopped.state == "failed"
    assert states(stopped)["check_dataset"] == "failed"
    assert sagemaker.list_training_jobs()["TrainingJobSummaries"] == before


def statuses(sagemaker: Any, group: str = "any-model") -> list[str]:
    """The approval statuses of a group's versions, oldest first."""
    packages = sagemaker.list_model_packages(
        ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Ascending"
    )
    return [package["ModelApprovalStatus"] for package in packages["ModelPackageSummaryList"]]
