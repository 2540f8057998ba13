"""How a run ended, from its tasks' states, reasons and results."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from retraining.operators.report import failed
from retraining.reporting.outcome import (
    REASON,
    Outcome,
    failure_reasons,
    keep_reason,
    outcome_of,
    skip_explained,
)
from retraining.runs.results import RunVerdict

TASKS = ["check_dataset", "plan", "train", "gate", "approve", "deploy", "verify"]
DONE = dict.fromkeys(TASKS, "success")
APPROVED = {"approved": True, "sentence": "The challenger goes live."}
REJECTED = {"approved": False, "sentence": "The challenger is worse by 4 points."}
VERIFIED = {"endpoint": "dog-breed"}


def judge(states: dict[str, str], reasons: dict[str, str] | None = None, **results: Any) -> Outcome:
    known: Any = results
    return outcome_of(states, reasons or {}, known)


class Run:
    """The part of a task's context that a callback uses: XComs and states."""

    def __init__(self, states: dict[str, str]) -> None:
        self.states = states
        self.xcoms: dict[tuple[str, str], str] = {}
        self.task_id = "train"

    def xcom_push(self, key: str, value: str) -> None:
        self.xcoms[self.task_id, key] = value

    def xcom_pull(self, task_ids: str, key: str, run_id: str | None = None) -> str | None:  # noqa: ARG002
        return self.xcoms.get((task_ids, key))


def test_a_verified_model_is_live() -> None:
    outcome = judge(DONE, gate=APPROVED, verification=VERIFIED)
    assert (outcome.verdict, outcome.sentence, outcome.task) == ("live", "The challenger goes live.", None)


def test_the_first_task_that_failed_is_named_with_its_reason() -> None:
    states = {**DONE, "train": "failed", "gate": "upstream_failed", "verify": "failed"}
    outcome = judge(states, {"train": "batch-size 4096 is too large"}, gate=APPROVED)
    assert (outcome.verdict, outcome.task) == ("failed", "train")
    assert outcome.sentence == "The run failed at train: batch-size 4096 is too large"
    assert judge(states).sentence.endswith("the task's log has the reason.")


def test_an_unchanged_run_says_so() -> None:
    states = {**dict.fromkeys(TASKS, "skipped"), "check_dataset": "success"}
    assert (
        judge(states, {"plan": "Nothing changed since Monday."}).sentence == "Nothing changed since Monday."
    )
    assert judge(states).verdict == "unchanged"


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ({"gate": REJECTED}, REJECTED["sentence"]),
        (
            {"gate": APPROVED, "approval": {"approved": False, "sentence": "Denied by admin."}},
            "Denied by admin.",
        ),
    ],
)
def test_the_champion_stays(results: dict[str, Any], sentence: str) -> None:
    states = {**DONE, "deploy": "skipped", "verify": "skipped"}
    outcome = judge(states, **results)
    assert (outcome.verdict, outcome.sentence) == ("kept", sentence)


def test_a_run_that_was_stopped_half_way_is_not_finished() -> None:
    outcome = judge({"check_dataset": "success", "plan": "success", "train": "running"})
    assert outcome.verdict == "unfinished"
    assert "after plan" in outcome.sentence
    assert "after its start" in judge({}).sentence


def test_reasons_travel_from_task_to_report() -> None:
    run = Run({"train": "failed", "plan": "success", "deploy": "skipped"})
    keep_reason({"ti": run, "exception": ValueError("no images")})  # type: ignore[typeddict-item]
    assert run.xcoms == {("train", REASON): "no images"}
    assert failure_reasons({"ti": run}, run.states) == {"train": "no images"}  # type: ignore[typeddict-item]
    run.task_id = "deploy"
    ti: Any = run
    with pytest.raises(AirflowSkipException, match="stays"), skip_explained(ti):
        raise AirflowSkipException("The champion stays.")
    assert failure_reasons({"ti": run}, run.states)["deploy"] == "The champion stays."  # type: ignore[typeddict-item]


def test_a_task_without_an_error_keeps_no_reason() -> None:
    run = Run({})
    keep_reason({"ti": run, "exception": None})  # type: ignore[typeddict-item]
    assert run.xcoms == {}


@pytest.mark.parametrize(
    ("verdict", "states", "marked_success", "fails"),
    [
        ("live", {"train": "success", "verify": "success"}, False, False),
        ("unchanged", {"plan": "skipped", "train": "skipped"}, False, False),
        ("failed", {"train": "failed", "verify": "upstream_failed"}, False, True),
        ("failed", {"train": "failed", "verify": "skipped"}, False, True),
        ("unfinished", {"plan": "success", "tune": "skipped", "train": "skipped"}, False, True),
        ("unfinished", {"plan": "success", "train": "success", "gate": "skipped"}, True, False),
    ],
    ids=[
        "done",
        "skipped",
        "a task failed",
        "marked failed",
        "marked failed between tasks",
        "marked success",
    ],
)
def test_the_report_fails_if_the_run_did(
    verdict: RunVerdict,
    states: dict[str, str],
    marked_success: bool,
    fails: bool,
) -> None:
    assert failed(verdict, states, marked_success=marked_success) is fails
