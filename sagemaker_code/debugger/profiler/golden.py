"""Comparison of our profiler rules with what AWS's service published for the same samples, field by field.

A job folder holds ``system_metrics.jsonl`` (the service's samples, reduced to the mean over cores and over
GPUs) and ``expected/<Rule>.json``. Fields that rest on samples the file does not hold are left out and listed
with the reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from debugger.profiler.rules import evaluate, read_evidence

RELATIVE_TOLERANCE = 1e-9
"""Percentiles of the same numbers differ in the last bits between numpy versions."""

FRAMEWORK = "rests on framework events, which are not in the file"
KINDS = "rests on network, memory and I/O samples, which are not in the file"
CORES = "rests on samples of single cores, which are not in the file"
INSTANTS = "counts instants of samples of every kind, most of which are not in the file"


@dataclass
class Comparison:
    """Outcome for one or several jobs."""

    fields: int = 0
    differ: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, other: Comparison) -> None:
        """Take in another job's outcome."""
        self.fields += other.fields
        self.differ += other.differ
        self.left_out += other.left_out

    def last_line(self) -> str:
        """``N fields, M differ``"""
        return f"{self.fields} fields, {len(self.differ)} differ"


def job_folders(path: Path) -> list[Path]:
    """Job folders at or below ``path``."""
    return sorted(
        one.parent for one in path.rglob("expected") if (one.parent / "system_metrics.jsonl").is_file()
    )


def compare_job(folder: Path) -> Comparison:
    """Evaluate a job's samples and compare every field of every expected file."""
    evidence = read_evidence(folder / "system_metrics.jsonl")
    reports = evaluate(evidence)
    has_gpu = any(evidence.system.gpus(node) for node in evidence.system.nodes)
    outcome = Comparison()
    for file in sorted((folder / "expected").glob("*.json")):
        ours = reports[file.stem].document() if file.stem in reports else None
        expected = json.loads(file.read_text(encoding="utf-8"))
        outcome.add(_compare_rule(f"{folder.name}/{file.stem}", file.stem, ours, expected, has_gpu=has_gpu))
    return outcome


def _compare_rule(label: str, rule: str, ours: Any, expected: Any, *, has_gpu: bool) -> Comparison:
    outcome = Comparison()
    if ours is None:
        outcome.fields, outcome.differ = 1, [f"{label}: no such rule here"]
        return outcome
    our_fields, expected_fields = dict(leaves(ours)), dict(leaves(expected))
    for name in {**expected_fields, **our_fields}:
        reason = left_out_reason(rule, name, has_gpu=has_gpu)
        if reason is not None:
            if name in expected_fields:
                outcome.left_out.append(f"{label}.{name}: {reason}")
            continue
        outcome.fields += 1
        if name not in our_fields or not equal(our_fields[name], expected_fields.get(name)):
            outcome.differ.append(
                f"{label}.{name}: AWS {expected_fields.get(name, 'nothing')}, ours "
                f"{our_fields.get(name, 'nothing')}"
            )
    return outcome


def left_out_reason(rule: str, name: str, *, has_gpu: bool) -> str | None:
    """Why a field cannot be derived from reduced samples; None if it can."""
    if name == "RuleParameters":
        return None
    if rule in ("CPUBottleneck", "IOBottleneck"):
        if name == "Datapoints":
            return INSTANTS
        return CORES if has_gpu and name != "Details/low_gpu_utilization" else None
    if rule == "OverallSystemUsage":
        return KINDS if name.startswith(("Details/Network", "Details/CPU memory", "Details/I/O")) else None
    if rule == "MaxInitializationTime" and name.startswith("Details/job_"):
        return KINDS
    framework = ("Dataloader", "MaxInitializationTime", "OverallFrameworkMetrics", "StepOutlier")
    return FRAMEWORK if rule in framework else None


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a JSON document with its path; an empty object or list is a leaf."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from leaves(value, f"{path}/{key}" if path else str(key))
    elif isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, document


def equal(ours: Any, expected: Any) -> bool:
    """Equality of leaves; numbers up to rounding in the last bits."""
    if isinstance(ours, int | float) and isinstance(expected, int | float):
        return math.isclose(ours, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)
    return bool(ours == expected)
