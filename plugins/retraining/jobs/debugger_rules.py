"""What Debugger rules found in a training job, and what that means for the run.

In mode `service` the platform holds the statuses; in mode `in_job` the job itself left them in its output.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, link, read, write
from retraining.config.pipeline import Pipeline
from retraining.formatting import rendered
from retraining.jobs.outputs import archived, output_archive, output_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

IN_PROGRESS, ISSUES, ERROR = "InProgress", "IssuesFound", "Error"
NOTHING = "NothingToLookAt"  # the local evaluator's word for what AWS reports as Stopped
REPORT_RULE = "ProfilerReport"
REPORT_FILE = "profiler-report.html"

_STATUS_MEMBERS = ("DebugRuleEvaluationStatuses", "ProfilerRuleEvaluationStatuses")
_CONDITION_MET = re.compile(
    r"RuleEvaluationConditionMet: Evaluation of the rule \S+ at step (\d+) "
    r"resulted in the condition being met\s*"
)
_ADVICE = " Try: "
_JOB_RESULTS = "debugger/"  # in the job's output.tar.gz, mode in_job
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 15.0


@dataclass(frozen=True)
class RuleState:
    """One rule's evaluation. `step` is the training step of a finding; `details` the platform's own text."""

    rule: str
    status: str
    step: int | None = None
    finding: str = ""
    advice: str = ""
    details: str = ""

    @property
    def line(self) -> str:
        """One line for the task log."""
        step = "" if self.step is None else f" at step {self.step}"
        said = self.finding or self.details
        advice = f" | try: {self.advice}" if self.advice else ""
        return f"[Debugger] {self.rule}: {self.status}{step}{' | ' + said if said else ''}{advice}"

    @property
    def level(self) -> int:
        """The log level at which a change to this state stands out as much as it should."""
        return {ISSUES: logging.WARNING, ERROR: logging.ERROR}.get(self.status, logging.INFO)


def parse_evaluation(evaluation: Mapping[str, Any]) -> RuleState:
    """A rule's entry in DescribeTrainingJob, or in the status file that it left in mode `in_job`.

    AWS's own rules say no more than that the condition was met, so finding and advice may be empty.
    """
    details = str(evaluation.get("StatusDetails", ""))
    status = str(evaluation.get("RuleEvaluationStatus", IN_PROGRESS))
    if details.startswith(NOTHING):
        status, details = NOTHING, details.removeprefix(NOTHING).lstrip(": ")
    met = _CONDITION_MET.match(details)
    if met is None:
        return RuleState(evaluation["RuleConfigurationName"], status, details=_one_line(details))
    finding, _, advice = details[met.end() :].partition(_ADVICE)
    return RuleState(
        evaluation["RuleConfigurationName"],
        status,
        int(met[1]),
        _one_line(finding),
        _one_line(advice),
        _one_line(details),
    )


def states(description: Mapping[str, Any]) -> list[RuleState]:
    """The rules of a DescribeTrainingJob answer, those of the profiler last."""
    return [parse_evaluation(entry) for member in _STATUS_MEMBERS for entry in description.get(member, [])]


def show_changes(
    found: list[RuleState], shown: Mapping[str, RuleState], emit: Callable[[int, str], object]
) -> dict[str, RuleState]:
    """Emit a line, with its log level, for every rule whose state is not the one shown before.

    Returns what is shown now.
    """
    for state in found:
        if shown.get(state.rule) != state:
            emit(state.level, state.line)
    return {state.rule: state for state in found}


def debugger_result(
    pipeline: Pipeline, training: Mapping[str, Any], aws: Aws, pause: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Wait for rules that end after training, print their table, and judge them by the pipeline's policies.

    Returns `{mode, rules: [{rule, policy, verdict, status, step, finding, advice, details}],
    blocking: [rule], report, report_url}`. `verdict` is `ok`, `ignored`, `warning`, `blocks` or `unknown`
    (evaluation error, nothing to look at, or still running); `report` is the S3 URI of the profiler's page
    or None.
    """
    job, output = training["job"], output_of(training)
    report: str | None
    if pipeline.debugger == "in_job":
        found, report = _states_in_output(aws.s3, training, list(pipeline.rules))
    elif pipeline.debugger == "service":
        found = _wait(aws, job, pipeline.rules_wait_seconds, pause)
        page = _report_uri(output, job)
        report = page if exists(aws.s3, page) else None
    else:
        found, report = [], None
    rules = [_judged(state, pipeline) for state in found]
    for line in table(rules).splitlines():
        log.info("%s", line)
    return {
        "mode": pipeline.debugger,
        "rules": rules,
        "blocking": [rule["rule"] for rule in rules if rule["verdict"] == "blocks"],
        "report": report,
        "report_url": link(aws.s3, report) if report else None,
    }


def table(rules: list[dict[str, Any]]) -> str:
    """The rules as a table for a log of fixed-width characters."""
    if not rules:
        return "No Debugger rules ran."
    grid = Table("rule", "status", "step", "policy", "verdict", "finding", "what to try", show_lines=True)
    for rule in rules:
        step = "" if rule["step"] is None else str(rule["step"])
        said = rule["finding"] or rule["details"]
        grid.add_row(
            rule["rule"], rule["status"], step, rule["policy"], rule["verdict"], said, rule["advice"] or ""
        )
    return rendered(grid)


def _judged(state: RuleState, pipeline: Pipeline) -> dict[str, Any]:
    rule = pipeline.rules.get(state.rule)
    policy = rule.policy if rule else "warn"
    return {**asdict(state), "policy": policy, "verdict": _verdict(state.status, policy)}


def _verdict(status: str, policy: str) -> str:
    if status == "NoIssuesFound":
        return "ok"
    if status != ISSUES:
        return "unknown"
    return {"ignore": "ignored", "warn": "warning", "fail": "blocks"}[policy]


def _wait(aws: Aws, job: str, limit: float, pause: Callable[[float], None]) -> list[RuleState]:
    """The rules' last states; those that still run after `limit` seconds stay InProgress."""
    started = time.monotonic()
    shown: dict[str, RuleState] = {}
    wait = _FIRST_WAIT
    while True:
        found = states(aws.sagemaker.describe_training_job(TrainingJobName=job))
        shown = show_changes(found, shown, log.log)
        running = [state.rule for state in found if state.status == IN_PROGRESS]
        if not running:
            return found
        if time.monotonic() - started > limit:
            log.error("Still not ended after %.0f s: %s", limit, ", ".join(running))
            return found
        pause(wait)
        wait = min(wait * 1.5, _LONGEST_WAIT)


def _states_in_output(
    s3: S3Client, training: Mapping[str, Any], rules: list[str]
) -> tuple[list[RuleState], str | None]:
    """The states and the report that the job's own monitor left in its output archive.

    A rule that left nothing was not evaluated, which is an error.
    """
    archive = output_archive(training)
    content = read(s3, archive)
    if content is None:
        reason = f"the job left no {archive}"
        return [RuleState(rule, ERROR, details=reason) for rule in rules], None
    files = {name.removeprefix(_JOB_RESULTS): text for name, text in archived(content, _JOB_RESULTS)}
    found = [parse_evaluation(json.loads(text)) for name, text in files.items() if name.startswith("rules/")]
    missing = sorted(set(rules) - {state.rule for state in found})
    found += [RuleState(rule, ERROR, details="the job left no result of this rule") for rule in missing]
    page = files.get(REPORT_FILE)
    if page is None:
        return found, None
    uri = _report_uri(output_of(training), training["job"])
    return found, write(s3, uri, page, "text/html; charset=utf-8")


def _report_uri(output: str, job: str) -> str:
    return f"{output}/{job}/rule-output/{REPORT_RULE}/profiler-output/{REPORT_FILE}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
