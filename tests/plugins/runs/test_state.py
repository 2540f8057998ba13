"""The record of the last run: whether anything changed, and what the last search found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.runs.context import RunLocation
from retraining.runs.results import ActualCost, ApprovalResult, LastRun, Plan, Trial, TuningResult
from retraining.runs.state import last_run, remember

from tests.dags.airflow_home import BUCKET
from tests.plugins.plans import DATASET, RUN, SCRIPT, MakePlan, make_plan, source

__all__ = ["make_plan", "source"]  # fixtures

LOCATION = RunLocation(BUCKET, "remembering", RUN)
NEXT = RunLocation(BUCKET, "remembering", "dog-breed-2611290640-17c0")
BEST = {"lr": "0.034", "batch-size": "64", "epochs": "7", "momentum": "0.6"}
TRIAL: Trial = {
    "name": "search-1-001",
    "status": "Completed",
    "objective": 0.91,
    "hyperparameters": BEST,
    "seconds": 9.0,
    "reason": None,
}
TUNING: TuningResult = {
    "job": "search-1",
    "status": "Completed",
    "seconds": 10.0,
    "objective": "valid:accuracy",
    "trials": [TRIAL],
    "best": TRIAL,
}


@pytest.fixture(autouse=True)
def forgotten(aws: Aws) -> Iterator[None]:
    yield
    aws.s3.delete_object(Bucket=BUCKET, Key=f"{LOCATION.shared}/last_run.json")


def keep(
    aws: Aws,
    plan: Plan,
    tuning: TuningResult | None = None,
    *,
    live: bool = False,
    location: RunLocation = LOCATION,
) -> LastRun:
    approval: ApprovalResult = {
        "approved": live,
        "sentence": "The champion stays.",
        "by": None,
        "at": None,
    }
    costs: ActualCost = {"jobs": [], "by_kind": {}, "billable_seconds": 0, "usd": 0, "complete": True}
    return remember(aws, location, {"plan": plan, "tuning": tuning, "approval": approval}, costs)


def test_a_run_of_the_same_things_is_skipped_and_says_what_the_last_one_did(
    make_plan: MakePlan, aws: Aws
) -> None:
    assert last_run(aws, LOCATION) is None
    kept = keep(aws, make_plan())
    last = last_run(aws, NEXT)
    assert last == kept
    with pytest.raises(AirflowSkipException, match=rf"Nothing changed since the run {RUN}.*champion stays"):
        make_plan(last=last)
    make_plan(last=last, force=True)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {**DATASET, "digest": "0f" * 32}},
        {"image_size": 128},
        {"bake_seconds": 5},
        {"of": {"hyperparameters": {"lr": 0.5, "batch-size": 8, "epochs": 1, "momentum": 0.1}}},
        {"of": {"gate": {"min_improvement": 0.01}}},
    ],
)
def test_another_dataset_form_or_pipeline_file_runs(
    make_plan: MakePlan, aws: Aws, change: dict[str, Any]
) -> None:
    make_plan(last=keep(aws, make_plan()), **change)


def test_what_has_no_bearing_on_the_result_does_not_make_a_run(
    make_plan: MakePlan, aws: Aws, pipeline: Pipeline
) -> None:
    last = keep(aws, make_plan())
    with pytest.raises(AirflowSkipException):
        make_plan(last=last, of={"owner": "somebody", "schedule": "@daily"}, spot=True)
    job = {**pipeline.job.model_dump(), "spot": True, "max_spot_wait_seconds": 60}
    with pytest.raises(AirflowSkipException):
        make_plan(last=last, of={"job": job})
    make_plan(last=last, of={"job": {**job, "volume_size_gb": 31}})


def test_other_code_runs(make_plan: MakePlan, aws: Aws, source: Path) -> None:
    last = keep(aws, make_plan())
    source.write_text(SCRIPT + "\n")
    make_plan(last=last)


def test_an_endpoint_that_is_gone_is_a_change(make_plan: MakePlan, aws: Aws) -> None:
    last = keep(aws, make_plan(), live=True)
    make_plan(last=last, of={"endpoint": {"name": "nobody-has-this"}})
    make_plan(last=last)


def test_the_best_hyperparameters_are_used_again_by_a_run_that_does_not_search(
    make_plan: MakePlan, aws: Aws
) -> None:
    last = keep(aws, make_plan(), TUNING)
    again = make_plan(last=last, skip_tuning=True)["training"]["HyperParameters"]
    assert BEST.items() <= again.items()
    other = make_plan(last=last, skip_tuning=True, arch="resnet18")["training"]["HyperParameters"]
    assert other["lr"] == "0.05"
    limited = make_plan(last=last, skip_tuning=True, epochs_min=1, epochs_max=3)
    assert limited["training"]["HyperParameters"]["epochs"] == "3"


def test_a_run_that_did_not_search_passes_the_last_search_on(make_plan: MakePlan, aws: Aws) -> None:
    first = keep(aws, make_plan(), TUNING)
    second = keep(aws, make_plan(last=first, run=NEXT.run, skip_tuning=True), location=NEXT)
    assert second["search"] == first["search"]


def test_a_repeated_run_compares_itself_with_the_run_before(make_plan: MakePlan, aws: Aws) -> None:
    first = keep(aws, make_plan(), TUNING)
    assert last_run(aws, LOCATION) is None
    plan = make_plan(last=first, run=NEXT.run, force=True)
    keep(aws, plan, location=NEXT)
    assert last_run(aws, NEXT) == first
    repeated = keep(aws, plan, live=True, location=NEXT)
    assert (repeated["before"], repeated["live"]) == (first, True)


def test_an_older_run_that_is_repeated_leaves_a_later_ones_record(make_plan: MakePlan, aws: Aws) -> None:
    first = keep(aws, make_plan())
    later = keep(aws, make_plan(last=first, run=NEXT.run, force=True), location=NEXT)
    keep(aws, make_plan(force=True), live=True)
    assert last_run(aws, LOCATION) == later


@pytest.mark.parametrize("content", [b"{", b'{"format_version": 99}'])
def test_a_record_that_cannot_be_read_is_no_record(aws: Aws, content: bytes) -> None:
    aws.s3.put_object(Bucket=BUCKET, Key=f"{LOCATION.shared}/last_run.json", Body=content)
    assert last_run(aws, LOCATION) is None
