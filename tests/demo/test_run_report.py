"""The record of a run, and how it divides the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.observation import metric_pairs
from demo.prediction import EndpointResponse, images
from demo.run_report import Timings, covered, report, write_report
from tests.demo.views import at, early, late

ENDPOINT: dict[str, Any] = {
    "EndpointName": "dog-breed",
    "EndpointStatus": "InService",
    "EndpointConfigName": "config",
    "CreationTime": at(44),
    "LastModifiedTime": at(48),
}


def test_time_covered_by_overlapping_intervals_counts_once() -> None:
    assert covered([(at(0), at(10)), (at(5), at(12)), (at(20), at(21)), (at(6), at(7))]) == 13
    assert covered([]) == 0


def test_a_finished_run_is_recorded_whole() -> None:
    timings = Timings()
    timings.add("run", 51.0)
    timings.add("local SageMaker", 2.0)
    response = EndpointResponse("a.jpg", "001.A", [{"class": "001.A", "label": "A", "probability": 0.9}])

    content = report("dog_breed_retraining", late(), {"max_jobs": 1}, ENDPOINT, [response], timings)

    assert content["state"] == "success"
    assert content["best_hyperparameters"] == {"lr": "0.05123"}
    assert content["metrics"] == {"test_accuracy": 0.75}
    assert content["tasks"][1] == {"task_id": "tune", "state": "success", "attempts": 2, "seconds": 18.0}
    assert content["tuning"]["trials"][0]["objective"] == 0.8
    assert content["tuning"]["trials"][0]["hyperparameters"] == {"lr": "0.05123", "epochs": "5"}
    assert content["endpoint"]["responses"][0]["predictions"][0]["label"] == "A"
    assert content["timing"] == {
        "steps": {"run": 51.0, "local SageMaker": 2.0},
        "wall_seconds": 53.0,
        "run_seconds": 50.0,
        "job_seconds": 34.0,
        "orchestration_seconds": 16.0,
    }


def test_an_endpoint_of_an_earlier_run_takes_none_of_the_time() -> None:
    earlier = {**ENDPOINT, "CreationTime": at(-90), "LastModifiedTime": at(-60)}
    assert report("dog_breed_retraining", late(), {}, earlier, [], Timings())["timing"]["job_seconds"] == 30.0


def test_a_run_that_failed_early_is_recorded_too(tmp_path: Path) -> None:
    write_report(
        tmp_path / "new" / "run.json", report("dog_breed_retraining", early(), {}, None, [], Timings())
    )
    content = json.loads((tmp_path / "new" / "run.json").read_text())
    assert (content["endpoint"], content["training"], content["metrics"]) == (None, None, {})


def test_metric_pairs_are_the_numbers_of_a_line() -> None:
    line = "epoch=3 train_loss=0.5 arch=resnet50 valid_accuracy=0.79"
    assert metric_pairs(line) == {"epoch": 3.0, "train_loss": 0.5, "valid_accuracy": 0.79}


@pytest.mark.parametrize(
    ("count", "names"), [(2, ["a1", "b1"]), (3, ["a1", "b1", "a2"]), (9, ["a1", "b1", "a2"])]
)
def test_pictures_come_from_every_class_before_any_class_gives_a_second(
    tmp_path: Path, count: int, names: list[str]
) -> None:
    for name in ("a1", "a2", "b1"):
        path = tmp_path / "test" / name[0] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.stem for path in images(tmp_path, count)] == names
