"""Statuses of rule evaluations, in the words and files that others read.

One JSON file a rule, replaced in one step at each change::

    {"RuleConfigurationName": "Overfit", "RuleEvaluationStatus": "IssuesFound", "StatusDetails": "...",
     "Outcome": "IssuesFound", "Step": 40, "Finding": "...", "Advice": "...", "ActionRequested":
     "stop_training", "LastModifiedTime": 1700000000.0}

``RuleEvaluationStatus`` is one of AWS's values. A rule that had nothing to look at ends as ``Stopped`` with
the Outcome ``NothingToLookAt``, because AWS has no value for it and NoIssuesFound would be untrue. ``Step``,
``Finding``, ``Advice`` and ``ActionRequested`` are there only when a rule found something. ``StatusDetails``
has at most 1,024 characters; when found it starts as AWS's does.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugger.files import write_atomically

MOST_DETAILS = 1024
IN_PROGRESS, NO_ISSUES, ISSUES, ERROR, STOPPED = (
    "InProgress",
    "NoIssuesFound",
    "IssuesFound",
    "Error",
    "Stopped",
)
NOTHING = "NothingToLookAt"
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
        """One line for a log: what a person, or a task that follows the log, reads."""
        step = "" if self.step is None else f" step={self.step}"
        text = f"[debugger] rule={self.name} status={self.status}{step}"
        if self.outcome == NOTHING:
            text += f" outcome={NOTHING}"
        said = self.finding or self.details
        if said:
            text += f" | {_one_line(said)}"
        if self.advice:
            text += f" | try: {_one_line(self.advice)}"
        if self.action:
            text += f" | action: {self.action}"
        return text


@dataclass
class StatusBoard:
    """Writes each status file and tells ``changed`` about every change."""

    folder: Path
    changed: Callable[[Status], None] = lambda _: None

    def begin(self, status: Status) -> None:
        """Publish a rule's first status."""
        self._publish(status)

    def found(self, status: Status, step: int, finding: str, advice: str) -> None:
        """The rule's condition was met."""
        status.status = status.outcome = ISSUES
        status.step, status.finding, status.advice = step, finding, advice
        status.details = (
            f"RuleEvaluationConditionMet: Evaluation of the rule {status.rule} at step {step} resulted in "
            "the "
            f"condition being met\n{finding} Try: {advice}"
        )
        self._publish(status)

    def quiet(self, status: Status, details: str) -> None:
        """The rule looked and found nothing."""
        self._end(status, NO_ISSUES, NO_ISSUES, details)

    def nothing(self, status: Status, details: str) -> None:
        """The rule had nothing, or not enough, to look at."""
        self._end(status, STOPPED, NOTHING, f"{NOTHING}: {details}")

    def failed(self, status: Status, details: str) -> None:
        """The evaluation itself went wrong; that says nothing about the training."""
        self._end(status, ERROR, ERROR, details)

    def stopped(self, status: Status, details: str) -> None:
        """The evaluation was ended from outside."""
        self._end(status, STOPPED, STOPPED, details)

    def _end(self, status: Status, value: str, outcome: str, details: str) -> None:
        status.status, status.outcome, status.details, status.action = value, outcome, details, None
        self._publish(status)

    def _publish(self, status: Status) -> None:
        status.modified = time.time()
        write_atomically(self.folder / file_name(status.name), json.dumps(status.document(), indent=1))
        self.changed(status)


def file_name(rule_configuration_name: str) -> str:
    """Name of a rule's status file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", rule_configuration_name) + ".json"


def read_statuses(folder: Path) -> list[dict[str, Any]]:
    """All status documents in a folder, by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[!.]*.json"))]


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace(" | ", "; ")
