"""Evaluates profiler rules while the job runs, with statuses like those of debugger rules."""

import logging
import time
from dataclasses import dataclass, field

from debugger.profiler.parameters import resolve
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.rules import EVALUATORS, read_evidence
from debugger.profiler.samples import Series, SystemMetrics
from debugger.profiler.write_report import write_report
from debugger.rules import PROFILER_REPORT
from debugger.statuses import Status, StatusBoard
from debugger.storage import FilesMissingError, local_copy

logger = logging.getLogger(__name__)

POLL_S = 60.0
"""AWS's service evaluates once a minute."""


@dataclass
class ProfilerRule:
    """One of the eleven rules, or ProfilerReport, which evaluates all and writes the report at the end.

    As on AWS, the step of a finding is the 0-based minute of the job in which the rule first fired;
    ProfilerReport's is the minute after the last. Raises ProfilerParameterError for a bad parameter.
    """

    rule: str
    parameters: dict[str, str]
    status: Status
    board: StatusBoard
    samples: str
    report: str | None
    _last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        prefix = "" if self.rule == PROFILER_REPORT else f"{self.rule}_"
        given = {k: v for k, v in self.parameters.items() if k not in ("rule_to_invoke", "action_json")}
        self._overrides = {prefix + name: value for name, value in given.items()}
        resolve(self._overrides)

    def poll(self, *, ended: bool) -> None:
        """Evaluate once a minute while the job runs; ProfilerReport waits for the end."""
        due = time.monotonic() - self._last >= POLL_S
        if ended or self.status.ended() or self.rule == PROFILER_REPORT or not due:
            return
        self._last = time.monotonic()
        try:
            self._evaluate()
        except OSError as error:
            logger.warning("rule %s is evaluated again in %.0f s: %s", self.status.name, POLL_S, error)

    def finish(self) -> None:
        """Evaluate the whole job; never raises."""
        if self.status.ended():
            return
        try:
            if self.rule == PROFILER_REPORT:
                self._write_report()
            elif not self._evaluate():
                self.board.no_issues(self.status, "the condition was not met in any minute of the job")
        except FilesMissingError as error:
            self.board.insufficient_data(self.status, str(error))
        except Exception as error:
            logger.exception("rule %s failed", self.status.name)
            self.board.failed(self.status, f"the rule failed with {type(error).__name__}: {error}")

    def _write_report(self) -> None:
        if self.report is None:
            self.board.insufficient_data(self.status, "this evaluation was given no --report to write to")
            return
        reports = write_report(self.samples, self.report, job=self.status.name, overrides=self._overrides)
        fired = {name: one.triggered for name, one in reports.items() if one.triggered}
        if not any(one.datapoints for one in reports.values()):
            self.board.insufficient_data(self.status, "there are neither system samples nor steps")
        elif fired:
            with local_copy(self.samples) as path:
                minutes = len(read_evidence(path).system.minutes())
            most_first = sorted(fired.items(), key=lambda pair: (-pair[1], pair[0]))
            listed = ", ".join(f"{name} {count} times" for name, count in most_first)
            self.board.found(
                self.status, minutes, f"fired: {listed}.", "see the advice in profiler-report.html"
            )
        else:
            self.board.no_issues(self.status, "none of the eleven profiler rules fired")

    def _evaluate(self) -> bool:
        try:
            with local_copy(self.samples) as path:
                evidence = read_evidence(path)
        except FilesMissingError:
            return False
        parameters = resolve(self._overrides)[self.rule]
        report = EVALUATORS[self.rule](evidence, parameters)
        if not report.triggered:
            return False
        minute = self._first_minute(evidence, report)
        self.board.found(
            self.status,
            minute,
            f"{self.rule} fired {report.triggered} times from minute {minute} on ({report.datapoints} "
            "datapoints).",
            "see the advice in profiler-report.html",
        )
        return True

    def _first_minute(self, evidence: Evidence, report: RuleReport) -> int:
        """0-based minute in which the rule first fires, by bisection over the start of the job."""
        minutes = evidence.system.minutes()
        low, high = 0, len(minutes) - 1
        while low < high:
            middle = (low + high) // 2
            part = Evidence(until(evidence.system, minutes[middle] + 60), evidence.framework)
            if EVALUATORS[self.rule](part, dict(report.parameters)).triggered:
                high = middle
            else:
                low = middle + 1
        return low


def until(metrics: SystemMetrics, end: float) -> SystemMetrics:
    """The samples before ``end`` (epoch seconds)."""
    found = {}
    for key, one in metrics.series.items():
        kept = int((one.times < end).sum())
        if kept:
            found[key] = Series(one.times[:kept], one.values[:kept])
    return SystemMetrics(found)
