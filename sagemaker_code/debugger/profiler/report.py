"""One profiler rule's outcome in the shape of AWS's report files, and what every rule is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from debugger.profiler.framework import FrameworkMetrics
from debugger.profiler.parameters import as_text
from debugger.profiler.samples import SystemMetrics


@dataclass
class RuleReport:
    """``triggered`` counts evaluations that met the condition, ``violations`` what they counted."""

    rule: str
    parameters: Mapping[str, Any]
    triggered: int = 0
    violations: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    datapoints: int = 0

    def document(self) -> dict[str, Any]:
        """The report file's content."""
        return {
            "RuleTriggered": self.triggered,
            "Violations": self.violations,
            "Details": self.details,
            "Datapoints": self.datapoints,
            "RuleParameters": as_text(self.parameters),
        }


@dataclass(frozen=True)
class Evidence:
    """Everything a rule may look at."""

    system: SystemMetrics
    framework: FrameworkMetrics
