"""Whether a model does worse than the one that it was to replace, on the same minutes.

CloudWatch adds up the metrics of both fleets of a blue/green deployment, so an alarm cannot say which fleet
raised it. The instances' logs can: `sagemaker_code/classifier/traffic.py` writes their lines.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.jobs.logs import endpoint_lines
from retraining.planning.deployment import LATENCY, MICROSECONDS

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef

MODEL = "RETRAINING_MODEL"
"""The container's environment variable that gives its lines the model's name."""
_MARK = "traffic: "
_BEFORE = timedelta(minutes=15)
"""How far back the old model's requests count where it had none on the new model's minutes."""
_ENOUGH = 10
"""Requests below which a model's rate of failures says nothing."""
_SIGNIFICANT = 0.01
"""Probability, under equal rates, below which more failures than the old model's are the new model's own."""


@dataclass(frozen=True)
class Report:
    """One line of an instance: its requests in the seconds before `at`."""

    model: str
    at: datetime
    requests: int
    failed: int
    p99_ms: float


@dataclass(frozen=True)
class Rate:
    """Requests, and how many of them were bad."""

    requests: int
    bad: int

    def __str__(self) -> str:
        return f"{self.bad} of {self.requests}"


@dataclass(frozen=True)
class Blame:
    """Whether the new model is at fault, with the figures in a sentence; None: it could not be told."""

    at_fault: bool | None
    sentence: str


def blame(
    aws: Aws, endpoint: str, model: str, alarms: Sequence[PutMetricAlarmInputTypeDef], since: datetime
) -> Blame:
    """Compare `model` with whatever else the endpoint's instances served since then.

    `alarms` are the requests for those that were on: each looks at failures or at latency.
    """
    lines = endpoint_lines(aws.logs, endpoint, since - _BEFORE)
    reports = [report for line in lines if (report := read_report(line))]
    verdicts = [judge(reports, model, alarm) for alarm in alarms]
    for wanted in (True, None, False):
        found = [verdict for verdict in verdicts if verdict.at_fault is wanted]
        if found:
            return Blame(wanted, " ".join(verdict.sentence for verdict in found))
    return Blame(None, "No alarm is known to have been on.")


def judge(reports: Iterable[Report], model: str, alarm: Mapping[str, Any]) -> Blame:
    """What the reports say about the model and one alarm."""
    reports = list(reports)
    limit = alarm["Threshold"] / MICROSECONDS if alarm["MetricName"] == LATENCY else None
    own = [report for report in reports if report.model == model]
    others = [report for report in reports if report.model != model]
    minutes = {_minute(report) for report in own}
    same = [report for report in others if _minute(report) in minutes]
    new, old = _rate(own, limit), _rate(same, limit)
    when = "on the same minutes"
    if old.requests < _ENOUGH and others:
        old, when = _rate(others, limit), "in the minutes around"
    bad = "failed" if limit is None else f"came with others above {limit:.0f} ms"
    figures = f"Of the new model's requests {new} {bad}, of the old model's {old} {when}."
    if not new.requests or old.requests < _ENOUGH:
        return Blame(None, f"{figures} That is too little to compare.")
    if probability(new, old) < _SIGNIFICANT:
        return Blame(True, figures)
    if new.bad and not old.bad:
        return Blame(None, f"{figures} That can be chance.")
    return Blame(False, f"{figures} The new model does no worse.")


def probability(new: Rate, old: Rate) -> float:
    """Of at least so many bad requests among the new model's, if both rates were equal.

    Fisher's exact test, one-sided: the hypergeometric distribution's upper tail.
    """
    requests, bad = new.requests + old.requests, new.bad + old.bad
    whole = _log_choose(requests, new.requests)
    return sum(
        math.exp(_log_choose(bad, k) + _log_choose(requests - bad, new.requests - k) - whole)
        for k in range(new.bad, min(bad, new.requests) + 1)
        if new.requests - k <= requests - bad
    )


def read_report(line: str) -> Report | None:
    """The report in a line of a log; None where there is none.

    Ray Serve puts the name of a process before what it prints.
    """
    _, mark, text = line.partition(_MARK)
    if not mark:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
        return Report(
            str(found["model"]),
            datetime.fromisoformat(found["at"]),
            int(found["requests"]),
            int(found["failed"]),
            float(found["p99_ms"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _rate(reports: Iterable[Report], limit: float | None) -> Rate:
    """Failures; with a limit in milliseconds, the requests of reports whose percentile is above it."""
    reports = list(reports)
    bad = (
        report.failed if limit is None else report.requests * (report.p99_ms > limit) for report in reports
    )
    return Rate(sum(report.requests for report in reports), sum(bad))


def _minute(report: Report) -> datetime:
    return report.at.replace(second=0, microsecond=0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
