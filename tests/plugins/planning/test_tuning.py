"""Warm start: last week's search as the parent of this one, as far as SageMaker takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Context
from retraining.aws.clients import Aws
from retraining.config.pipeline import load_pipeline
from retraining.operators.tuning import TuningOperator

from tests.dags.airflow_home import DAGS
from tests.plugins.conftest import dataset_files
from tests.plugins.plans import DATASET, MakePlan, make_plan, source

__all__ = ["make_plan", "source"]  # fixtures

SCRIPT = "print('epoch=1 valid_accuracy=0.5')"


def remembered(plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the run of a plan leaves to the next one, with another fingerprint."""
    search = {
        "job": plan["tuning"]["HyperParameterTuningJobName"],
        "model": plan["run"]["model"],
        "data": plan["run"]["fingerprint"]["data"],
        "code": plan["run"]["fingerprint"]["code"],
        "weights": plan["run"]["fingerprint"]["weights"],
        "objective": 0.5,
        "hyperparameters": {},
        **changes,
    }
    return {
        "run": "earlier",
        "at": "",
        "fingerprint": {},
        "live": False,
        "outcome": "",
        "search": search,
        "costs": {"jobs": []},
    }


@pytest.fixture
def search(aws: Aws, upload: Callable[[str, dict[str, bytes]], None]) -> Callable[[dict[str, Any]], None]:
    """Run a planned tuning job to its end."""
    upload("datasets/dog_breed", dataset_files())

    def run(plan: dict[str, Any]) -> None:
        TuningOperator(task_id="tune", config=plan["tuning"], deferrable=False).execute(Context())

    return run


def test_a_search_starts_from_the_last_one(
    make_plan: MakePlan, search: Callable[[dict[str, Any]], None], source: Path
) -> None:
    source.write_text(SCRIPT)
    small = {"max_jobs": 1, "max_parallel_jobs": 1}
    first = make_plan(run="warm-1", **small)
    assert "WarmStartConfig" not in first["tuning"]
    search(first)

    same = make_plan(run="warm-2", last=remembered(first), **small)
    assert same["tuning"]["WarmStartConfig"] == {
        "ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": "warm-1"}],
        "WarmStartType": "IdenticalDataAndAlgorithm",
    }
    search(same)

    other = make_plan(run="warm-3", last=remembered(first), dataset={**DATASET, "digest": "0f" * 32}, **small)
    transferred = {
        "other data": other,
        "other weights": make_plan(last=remembered(first, weights="0f"), **small),
        "another range": make_plan(last=remembered(first), epochs_max=9, **small),
        "another fixed value": make_plan(of=with_value("seed", 7), last=remembered(first), **small),
        "another container": make_plan(last=remembered(first), instance_type="ml.g4dn.xlarge", **small),
    }
    kinds = {why: plan["tuning"]["WarmStartConfig"]["WarmStartType"] for why, plan in transferred.items()}
    assert kinds == dict.fromkeys(transferred, "TransferLearning")
    search(other)

    cold = {
        "another model": make_plan(last=remembered(first), arch="resnet18", **small),
        "a job that is gone": make_plan(last=remembered(first, job="gone"), **small),
        "another set of hyperparameters": make_plan(
            of={"hyperparameters": {**dict.fromkeys(("lr", "momentum"), 0.1), "batch-size": 32, "epochs": 5}},
            last=remembered(first),
            **small,
        ),
        "another objective": make_plan(of=other_objective(), last=remembered(first), **small),
        "too many trials": make_plan(last=remembered(first), max_jobs=750, max_parallel_jobs=1),
    }
    assert [why for why, plan in cold.items() if "WarmStartConfig" in plan["tuning"]] == []


def with_value(name: str, value: float) -> dict[str, Any]:
    """The dog breeds' hyperparameters with another fixed value."""
    pipeline = load_pipeline(DAGS / "pipelines" / "dog_breed.yaml")
    return {"hyperparameters": {**pipeline.hyperparameters, name: value}}


def other_objective() -> dict[str, Any]:
    space = {"lr": {"type": "continuous", "min": 0.01, "max": 0.1}}
    hyperparameters = {"lr": 0.05, "momentum": 0.9, "batch-size": 32, "epochs": 8, "weight-decay": 0.0001}
    objective = {"metric": "valid:loss", "type": "Minimize"}
    return {
        "tuning": {"objective": objective, "search_space": space},
        "hyperparameters": {**hyperparameters, "seed": 42},
    }
