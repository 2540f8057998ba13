"""What Debugger rules found in a training job, and what that means for the run.

In mode `service` the platform reports the rules' states; in mode `in_job` the job leaves them in its output.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, link, read, write
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Policy
from retraining.formatting import rendered
from retraining.jobs.kinds import TRAINING
from retraining.jobs.logs import archived, output_archive
from retraining.runs.results import DebuggerResult, RuleResult, RuleVerdict, TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

IN_PROGRESS, ISSUES, ERROR = "InProgress", "IssuesFound", "Error"
INSUFFICIENT = (
    "InsufficientData"  # AWS's API has no such status: the details of a `Stopped` rule begin with it
)
REPORT_RULE = "ProfilerReport"
REPORT_FILE = "profiler-report.html"

_STATUS_MEMBERS = ("DebugRuleEvaluationStatuses", "ProfilerRuleEvaluationStatuses")
_CONDITION_MET = re.compile(
    r"RuleEvaluationConditionMet: Evaluation of the rule \S+ at step (\d+) "
    r"resulted in the condition being met\s*"
)
_ADVICE = " Try: "
_JOB_RESULTS = "debugger/"  # in the job's output.tar.gz, mode in_job


@dataclass(frozen=True)
class RuleState:
    """State of one rule. `step` is the training step of a finding; `details` is the platform's text."""

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
        text = self.finding or self.details
        advice = f" | try: {self.advice}" if self.advice else ""
        return f"[Debugger] {self.rule}: {self.status}{step}{' | ' + text if text else ''}{advice}"

    @property
    def level(self) -> int:
        """The log level for a change to this state."""
        return {ISSUES: logging.WARNING, ERROR: logging.ERROR}.get(self.status, logging.INFO)


def parse_evaluation(evaluation: Mapping[str, Any]) -> RuleState:
    """A rule's state, from its entry in DescribeTrainingJob or from its status file in mode `in_job`.

    AWS's own rules only say that the condition was met, so finding and advice may be empty.
    """
    details = str(evaluation.get("StatusDetails", ""))
    status = str(evaluation.get("RuleEvaluationStatus", IN_PROGRESS))
    if details.startswith(INSUFFICIENT):
        status, details = INSUFFICIENT, details.removeprefix(INSUFFICIENT).lstrip(": ")
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


def rule_states(description: Mapping[str, Any]) -> list[RuleState]:
    """The rules' states in a DescribeTrainingJob response; profiler rules come last."""
    return [parse_evaluation(entry) for member in _STATUS_MEMBERS for entry in description.get(member, [])]


def debugger_result(pipeline: Pipeline, training: TrainingResult, aws: Aws) -> DebuggerResult:
    """Log the table of the rules as they are now, and judge them by the pipeline's policies.

    The verdict `unknown` covers errors, insufficient data, and rules that have not ended.
    """
    report: str | None
    if pipeline.debugger == "in_job":
        found, report = _states_in_output(aws.s3, training, list(pipeline.rules))
    elif pipeline.debugger == "service":
        found = rule_states(TRAINING.describe(aws, training["job"]))
        page = _report_uri(training)
        report = page if exists(aws.s3, page) else None
    else:
        found, report = [], None
    rules = [_judged(state, pipeline) for state in found]
    for line in rule_table(rules).splitlines():
        log.info("%s", line)
    return {
        "mode": pipeline.debugger,
        "rules": rules,
        "blocking": [rule["rule"] for rule in rules if rule["verdict"] == "blocks"],
        "report": report,
        "report_url": link(aws.s3, report) if report else None,
    }


def rule_table(rules: list[RuleResult]) -> str:
    """The rules for the task log, each with its finding and, below it, what to try."""
    if not rules:
        return "No Debugger rules ran."
    grid = Table("rule, status and step", "verdict", "finding and what to try", show_lines=True)
    for rule in rules:
        step = "" if rule["step"] is None else f" at {rule['step']}"
        text = rule["finding"] or rule["details"]
        advice = f"\nTry: {rule['advice']}" if rule["advice"] else ""
        grid.add_row(f"{rule['rule']}\n{rule['status']}{step}", rule["verdict"], text + advice)
    return rendered(grid)


def _judged(state: RuleState, pipeline: Pipeline) -> RuleResult:
    rule = pipeline.rules.get(state.rule)
    policy = rule.policy if rule else "warn"
    return {
        "rule": state.rule,
        "status": state.status,
        "policy": policy,
        "verdict": _verdict(state.status, policy),
        "step": state.step,
        "finding": state.finding,
        "advice": state.advice,
        "details": state.details,
    }


def _verdict(status: str, policy: Policy) -> RuleVerdict:
    if status == "NoIssuesFound":
        return "ok"
    if status != ISSUES:
        return "unknown"
    verdicts: dict[Policy, RuleVerdict] = {"ignore": "ignored", "warn": "warning", "fail": "blocks"}
    return verdicts[policy]


def _states_in_output(
    s3: S3Client, training: TrainingResult, rules: list[str]
) -> tuple[list[RuleState], str | None]:
    """The states and the report that the monitor inside the job left in its output archive.

    A rule without a status file was not evaluated, which is an error.
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
    return found, write(s3, _report_uri(training), page, "text/html; charset=utf-8") if page else None


def _report_uri(training: TrainingResult) -> str:
    folder = f"{training['output']}/{training['job']}/rule-output"
    return f"{folder}/{REPORT_RULE}/profiler-output/{REPORT_FILE}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
