"""The run's results in one document."""

from __future__ import annotations

import json
from typing import Any

from retraining.report import run_report

RUN = {
    "name": "dog-breed-2611220640-3fa9",
    "run_id": "manual__1",
    "pipeline": "dog_breed",
    "region": "us-east-1",
    "bucket": "bucket",
    "output": "s3://bucket/out",
    "code": "s3://bucket/code.tar.gz",
    "weights": None,
    "endpoint": "dog-breed",
}
DATASET = {"uri": "s3://bucket/data", "classes": ["a", "b"], "images": {"train": 2}, "counts": {}}
TRAINING: dict[str, Any] = {
    "job": "job",
    "status": "Completed",
    "seconds": 1.0,
    "billable_seconds": 1,
    "metrics": {"test:accuracy": 0.5},
    "hyperparameters": {"lr": "0.1", "sagemaker_program": "train.py"},
    "model_artifact": "s3://bucket/model.tar.gz",
    "Training": {"much": "more"},
}


RULES: dict[str, Any] = {"mode": "service", "rules": [], "blocking": [], "report": None, "report_url": None}


def report_of(tuning: dict[str, Any] | None) -> dict[str, Any]:
    return run_report(
        plan={"run": RUN},
        dataset=DATASET,
        tuning=tuning,
        training=TRAINING,
        debugger=RULES,
        verification={"endpoint": "dog-breed"},
    )


def test_the_report_names_what_a_reader_needs() -> None:
    tuning = {"job": "job", "trials": [], "best": {"name": "trial"}}
    report = report_of(tuning)
    assert report["run_name"] == RUN["name"]
    assert report["test_accuracy"] == 0.5
    assert report["hyperparameters"] == {"lr": "0.1"}
    assert report["tuning"] == tuning
    assert "Training" not in report["training"]
    assert report["debugger"] == {"mode": "service", "rules": [], "report": None}
    json.dumps(report)


def test_a_run_without_tuning_says_so() -> None:
    report = report_of(None)
    assert report["tuning"] is None
