"""Rule evaluations in the document of a training job, as DescribeTrainingJob shows them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from local_sagemaker.store import Document

Configuration = Mapping[str, Any]

# configurations in the request → evaluations in the response
MEMBERS = {
    "DebugRuleConfigurations": "DebugRuleEvaluationStatuses",
    "ProfilerRuleConfigurations": "ProfilerRuleEvaluationStatuses",
}
IN_PROGRESS = "InProgress"
ERROR = "Error"
STOPPED = "Stopped"

_SHOWN = ("RuleEvaluationStatus", "StatusDetails", "LastModifiedTime")
_DETAILS_LIMIT = 1024  # StatusDetails
_JOB_PART, _HASH_PART = 26, 8  # characters in a rule job's name, as in AWS's responses


def configurations(job: Document) -> list[Configuration]:
    """All rules of a job, profiler rules last."""
    return [rule for member in MEMBERS for rule in job.get(member, [])]


def profiles(job: Document) -> bool:
    """Whether the job has a profiler that is not disabled."""
    config = job.get("ProfilerConfig")
    return config is not None and not config.get("DisableProfiler", False)


def begin(job: Document, now: float) -> None:
    """Add an evaluation in progress for every rule that has none: all of a new job, or added ones."""
    arn_prefix = job["TrainingJobArn"].rpartition(":")[0] + ":processing-job/"
    for member, statuses in MEMBERS.items():
        if member not in job:
            continue
        known = {status["RuleConfigurationName"] for status in job.get(statuses, [])}
        job[statuses] = [
            *job.get(statuses, []),
            *(
                {
                    "RuleConfigurationName": rule["RuleConfigurationName"],
                    "RuleEvaluationJobArn": arn_prefix + job_name(job, rule["RuleConfigurationName"]),
                    "RuleEvaluationStatus": IN_PROGRESS,
                    "LastModifiedTime": now,
                }
                for rule in job[member]
                if rule["RuleConfigurationName"] not in known
            ),
        ]


def job_name(job: Document, rule: str) -> str:
    """The name of the processing job that evaluates a rule on AWS."""
    digest = hashlib.sha256(f"{job['TrainingJobArn']} {rule}".encode()).hexdigest()[:_HASH_PART]
    return f"{job['TrainingJobName'][:_JOB_PART]}-{rule.lower()}-{digest}"


def evaluations(job: Document) -> Iterator[dict[str, Any]]:
    for statuses in MEMBERS.values():
        yield from job.get(statuses, [])


def pending(job: Document) -> list[Configuration]:
    """The rules that are still being evaluated, profiler rules last."""
    names = {
        status["RuleConfigurationName"]
        for status in evaluations(job)
        if status["RuleEvaluationStatus"] == IN_PROGRESS
    }
    return [rule for rule in configurations(job) if rule["RuleConfigurationName"] in names]


def apply(job: Document, reported: Iterable[Mapping[str, Any]]) -> None:
    """Copy an evaluator's reports to the evaluations in progress."""
    by_name = {report["RuleConfigurationName"]: report for report in reported}
    for status in evaluations(job):
        report = by_name.get(status["RuleConfigurationName"])
        if report is not None and status["RuleEvaluationStatus"] == IN_PROGRESS:
            status |= {member: report[member] for member in _SHOWN if report.get(member)}


def close(job: Document, rules: Collection[str], outcome: str, details: str, now: float) -> None:
    """End these rules' evaluations in progress, all with the same outcome."""
    for status in evaluations(job):
        if status["RuleEvaluationStatus"] == IN_PROGRESS and status["RuleConfigurationName"] in rules:
            status |= {
                "RuleEvaluationStatus": outcome,
                "StatusDetails": details[:_DETAILS_LIMIT],
                "LastModifiedTime": now,
            }
