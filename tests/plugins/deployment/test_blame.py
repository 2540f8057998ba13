"""Whose fault an alarm is, from what the instances of both models write about the same minutes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from retraining.config.sections import Alarms
from retraining.deployment.blame import Rate, Report, judge, probability, read_report
from retraining.planning.deployment import alarm_requests

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
FAILURES, LATENCY = alarm_requests(Alarms(max_5xx=3, max_latency_ms=2000), "dogs", "AllTraffic")


def report(model: str, requests: int, failed: int = 0, p99_ms: float = 20, minute: int = 0) -> Report:
    return Report(model, NOON + timedelta(minutes=minute), requests, failed, p99_ms)


@pytest.mark.parametrize(
    ("reports", "alarm", "at_fault", "says"),
    [
        (
            [report("new", 40, 40), report("old", 360)],
            FAILURES,
            True,
            "40 of 40 failed, of the old model's 0 of 360",
        ),
        # a client's image that no model can bear
        ([report("new", 50, 4), report("old", 450, 30)], FAILURES, False, "does no worse"),
        # the old model fails, the new one mends it
        ([report("new", 50), report("old", 450, 30)], FAILURES, False, "0 of 50 failed"),
        ([report("new", 50, 50), report("old", 450, 30)], FAILURES, True, "50 of 50"),
        ([report("new", 500, 1), report("old", 500)], FAILURES, None, "can be chance"),
        # all traffic at once: the old model's requests are those of the minutes before
        ([report("new", 40, 40, minute=5), report("old", 360)], FAILURES, True, "in the minutes around"),
        ([report("new", 40, 40)], FAILURES, None, "too little to compare"),
        ([report("old", 400)], FAILURES, None, "too little to compare"),
        ([], FAILURES, None, "too little to compare"),
        (
            [report("new", 40, p99_ms=3000), report("old", 360)],
            LATENCY,
            True,
            "40 of 40 came with others above 2000",
        ),
        ([report("new", 40, p99_ms=3000), report("old", 360, p99_ms=2500)], LATENCY, False, "does no worse"),
    ],
)
def test_only_a_model_that_does_worse_on_the_same_minutes_is_at_fault(
    reports: list[Report], alarm: Any, at_fault: bool | None, says: str
) -> None:
    found = judge(reports, "new", alarm)
    assert found.at_fault is at_fault, found.sentence
    assert says in found.sentence


def test_the_probability_is_that_of_fishers_exact_test() -> None:
    # scipy.stats.fisher_exact([[8, 2], [1, 5]], alternative="greater"): the textbook's table
    assert probability(Rate(10, 8), Rate(6, 1)) == pytest.approx(0.024476, abs=1e-6)
    assert probability(Rate(10, 0), Rate(6, 0)) == pytest.approx(1)
    assert probability(Rate(5, 5), Rate(5, 5)) == pytest.approx(1)


def test_reports_are_found_behind_what_a_model_server_puts_before_them() -> None:
    line = {"model": "m", "at": "2026-11-27T12:00:00+00:00", "requests": 3, "failed": 1, "p99_ms": 8.5}
    wanted = Report("m", NOON, 3, 1, 8.5)
    assert (
        read_report(f"(ServeReplica:default:Endpoint pid=7) traffic: {json.dumps(line)} [repeated 2x]")
        == wanted
    )
    for broken in ("traffic: ", "traffic: {", 'traffic: {"model": 1}', "traffic: []", "no traffic"):
        assert read_report(broken) is None
