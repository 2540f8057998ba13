"""A profiler rule's input, and its outcome in the structure of AWS's report files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from debugger.profiler.framework import FrameworkMetrics
from debugger.profiler.parameters import as_text
from debugger.profiler.samples import SystemMetrics


@dataclass
class RuleReport:
    """``triggered`` counts the evaluations that met the condition, ``violations`` what these counted."""

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
    """Everything that a rule may use."""

    system: SystemMetrics
    framework: FrameworkMetrics
