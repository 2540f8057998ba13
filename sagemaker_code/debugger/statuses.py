"""The status of each rule evaluation, as a JSON file and a line for the log.

A rule's file is replaced atomically at each change::

    {"RuleConfigurationName": "Overfit", "RuleEvaluationStatus": "IssuesFound", "StatusDetails": "...",
     "Outcome": "IssuesFound", "Step": 40, "Finding": "...", "Advice": "...", "ActionRequested":
     "stop_training", "LastModifiedTime": 1700000000.0}

``RuleEvaluationStatus`` is one of AWS's values. A rule without enough data ends as ``Stopped`` with the
Outcome ``InsufficientData``, because AWS has no such status and NoIssuesFound would be wrong. ``Step``,
``Finding`` and ``Advice`` are present only if the rule found an issue, ``ActionRequested`` only if it also
requests an action. ``StatusDetails`` has at most 1,024 characters; those of an issue start as AWS's do.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugger.storage import write_atomically

MOST_DETAILS = 1024
_LONGEST_NAME = 200  # characters: file systems allow 255 bytes, with all suffixes
IN_PROGRESS, NO_ISSUES, ISSUES = "InProgress", "NoIssuesFound", "IssuesFound"
ERROR, STOPPED = "Error", "Stopped"
INSUFFICIENT_DATA = "InsufficientData"
STOP_TRAINING = "stop_training"


@dataclass
class Status:
    """The state of one rule's evaluation."""

    name: str
    rule: str
    status: str = IN_PROGRESS
    outcome: str = IN_PROGRESS
    details: str = ""
    step: int | None = None
    finding: str = ""
    advice: str = ""
    action: str | None = None
    modified: float = 0.0

    def ended(self) -> bool:
        """Whether the evaluation is over."""
        return self.status != IN_PROGRESS

    def document(self) -> dict[str, Any]:
        """The status file's content."""
        document: dict[str, Any] = {
            "RuleConfigurationName": self.name,
            "RuleEvaluationStatus": self.status,
            "StatusDetails": self.details[:MOST_DETAILS],
            "Outcome": self.outcome,
            "LastModifiedTime": self.modified,
        }
        if self.status == ISSUES:
            document |= {"Step": self.step, "Finding": self.finding, "Advice": self.advice}
            if self.action:
                document["ActionRequested"] = self.action
        return document

    def line(self) -> str:
        """One line for the log, which people and Airflow tasks read."""
        step = "" if self.step is None else f" step={self.step}"
        text = f"[debugger] rule={self.name} status={self.status}{step}"
        if self.outcome == INSUFFICIENT_DATA:
            text += f" outcome={INSUFFICIENT_DATA}"
        details = self.finding or self.details
        if details:
            text += f" | {_one_line(details)}"
        if self.advice:
            text += f" | try: {_one_line(self.advice)}"
        if self.action:
            text += f" | action: {self.action}"
        return text


@dataclass
class StatusBoard:
    """Writes each status file and calls ``changed`` for every change."""

    folder: Path
    changed: Callable[[Status], None] = lambda _: None

    def found(self, status: Status, step: int, finding: str, advice: str) -> None:
        """The rule's condition was met."""
        status.status = status.outcome = ISSUES
        status.step, status.finding, status.advice = step, finding, advice
        status.details = (
            f"RuleEvaluationConditionMet: Evaluation of the rule {status.rule} at step {step} "
            f"resulted in the condition being met\n{finding} Try: {advice}"
        )
        self.publish(status)

    def no_issues(self, status: Status, details: str) -> None:
        """The rule had enough data and its condition was not met."""
        self._end(status, NO_ISSUES, NO_ISSUES, details)

    def insufficient_data(self, status: Status, details: str) -> None:
        """The rule had no data, or not enough."""
        self._end(status, STOPPED, INSUFFICIENT_DATA, f"{INSUFFICIENT_DATA}: {details}")

    def failed(self, status: Status, details: str) -> None:
        """The evaluation itself failed; that says nothing about the training."""
        self._end(status, ERROR, ERROR, details)

    def stopped(self, status: Status, details: str) -> None:
        """The evaluation was ended from outside."""
        self._end(status, STOPPED, STOPPED, details)

    def _end(self, status: Status, value: str, outcome: str, details: str) -> None:
        status.status, status.outcome, status.details, status.action = value, outcome, details, None
        self.publish(status)

    def publish(self, status: Status) -> None:
        """Write the rule's status file and report the change."""
        status.modified = time.time()
        write_atomically(self.folder / file_name(status.name), json.dumps(status.document(), indent=1))
        self.changed(status)


def file_name(rule_configuration_name: str) -> str:
    """Name of a rule's status file: visible, and never another rule's."""
    name = re.sub(r"^\.|[^A-Za-z0-9_.-]", "_", rule_configuration_name)[:_LONGEST_NAME]
    if name != rule_configuration_name:
        name += "-" + hashlib.sha256(rule_configuration_name.encode()).hexdigest()[:12]
    return f"{name}.json"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace(" | ", "; ")
