"""``python -m debugger golden PATH``: compare our profiler rules with AWS's reports, field by field.

PATH is a job folder or any folder above some. A job folder holds ``system_metrics.jsonl`` (the service's
samples, reduced to the mean over cores and over GPUs) and ``expected/<Rule>.json``. Fields that depend on
samples which are not in the file are skipped and listed with the reason. The last line is ``N fields, M
differ``; the exit status is 0 if none do.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from debugger.profiler.rules import evaluate, read_evidence

RELATIVE_TOLERANCE = 1e-9
"""Percentiles of the same numbers differ in the last bits between numpy versions."""

FRAMEWORK = "depends on framework events, which are not in the file"
KINDS = "depends on network, memory and I/O samples, which are not in the file"
CORES = "depends on samples of single cores, which are not in the file"
INSTANTS = "counts instants of samples of every kind, most of which are not in the file"


@dataclass
class Comparison:
    """The outcome for one or several jobs."""

    fields: int = 0
    differ: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, other: "Comparison") -> None:
        """Add another job's outcome."""
        self.fields += other.fields
        self.differ += other.differ
        self.skipped += other.skipped

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
        outcome.fields, outcome.differ = 1, [f"{label}: there is no such rule here"]
        return outcome
    our_fields, expected_fields = dict(leaves(ours)), dict(leaves(expected))
    for name in {**expected_fields, **our_fields}:
        reason = skip_reason(rule, name, has_gpu=has_gpu)
        if reason is not None:
            if name in expected_fields:
                outcome.skipped.append(f"{label}.{name}: {reason}")
            continue
        outcome.fields += 1
        if name not in our_fields or not equal(our_fields[name], expected_fields.get(name)):
            outcome.differ.append(
                f"{label}.{name}: AWS {expected_fields.get(name, 'nothing')}, ours "
                f"{our_fields.get(name, 'nothing')}"
            )
    return outcome


def skip_reason(rule: str, name: str, *, has_gpu: bool) -> str | None:
    """Why a field cannot be computed from reduced samples; None if it can."""
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
    """Every leaf of a JSON document with its path; empty objects and lists are leaves."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from leaves(value, f"{path}/{key}" if path else str(key))
    elif isinstance(document, list) and document:
        for index, value in enumerate(document):
            yield from leaves(value, f"{path}/{index}")
    else:
        yield path, document


def equal(ours: Any, expected: Any) -> bool:
    """Equality of leaves; numbers may differ by rounding."""
    if isinstance(ours, int | float) and isinstance(expected, int | float):
        return math.isclose(ours, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)
    return bool(ours == expected)


def main(arguments: list[str] | None = None) -> int:
    """Print what differs and what was skipped; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m debugger golden", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--left-out",
        dest="skipped",
        action="store_true",
        help="list every skipped field, not only their number",
    )
    options = parser.parse_args(arguments)
    folders = job_folders(options.path)
    if not folders:
        print(
            f"no job folder (system_metrics.jsonl beside expected/) at or below {options.path}",
            file=sys.stderr,
        )
        return 2
    whole = Comparison()
    for folder in folders:
        outcome = compare_job(folder)
        print(f"{folder.name}: {outcome.last_line()}, {len(outcome.skipped)} skipped")
        whole.add(outcome)
    for line in whole.differ:
        print(f"differs: {line}")
    if options.skipped:
        print(*(f"skipped: {line}" for line in whole.skipped), sep="\n")
    for reason, count in Counter(line.split(": ", 1)[1] for line in whole.skipped).items():
        print(f"skipped: {count} fields: {reason}")
    print(whole.last_line())
    return 1 if whole.differ else 0
