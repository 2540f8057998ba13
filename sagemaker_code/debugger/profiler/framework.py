"""A job's framework metrics: steps, data loading and operators, read from smdebug's trace files.

A trace file is a JSON array in Chrome's trace format, below ``framework/``, named ``<YYYYMMDDHH>/<end in
µs>_<pid>-<node>_pythontimeline.json``. Both ``debugger.steps`` and smdebug's own profiler write them.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from debugger.profiler.samples import Array, natural_order
from debugger.profiler.statistics import shares

STEP = "Step:"
TRAIN = "Step:ModeKeys.TRAIN"
EVAL = "Step:ModeKeys.EVAL"
LOADER_START = "DataLoaderIterInitialize"
LOADER_NEXT = "DataLoaderIter"
CPU_OPERATORS = "cpu_functions"
GPU_OPERATORS = "gpu_functions"
TRACE_FILE = re.compile(r"^\d+_(?P<pid>\d+)-(?P<node>algo-\d+)_.*\.json$")
SHOWN_SHARE = 2.0
"""The report omits operators below this share (in %) of their device's time, as AWS's files do."""


@dataclass(frozen=True)
class Span:
    """One event of a trace: ``start`` and ``duration`` in µs since the epoch."""

    process: str
    phase: str
    name: str
    start: float
    duration: float
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def end(self) -> float:
        """End in µs since the epoch."""
        return self.start + self.duration


@dataclass
class FrameworkMetrics:
    """All spans of a job by start time, and the names of files that could not be read."""

    spans: list[Span] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def of(self, phase: str) -> list[Span]:
        """Spans whose phase starts with ``phase``."""
        return [one for one in self.spans if one.phase.startswith(phase)]

    def steps(self) -> list[Span]:
        """Training and evaluation steps."""
        return self.of(STEP)

    def loading(self) -> list[Span]:
        """Waits for the next batch."""
        return [one for one in self.spans if one.phase == LOADER_NEXT]

    def loader_settings(self) -> dict[str, Any]:
        """``num_workers``, ``pin_memory``, … of the training loader; empty without traces of a loader."""
        starts = [one for one in self.spans if one.phase == LOADER_START]
        training = [one for one in starts if one.arguments.get("mode", "TRAIN") == "TRAIN"] or starts
        return dict(training[-1].arguments) if training else {}

    def within(self, moments: Array, reach: float = 0.25) -> "FrameworkMetrics":
        """Spans within ``reach`` seconds of one of the ``moments`` (epoch seconds)."""
        if not len(moments) or not self.spans:
            return FrameworkMetrics()
        moments = np.sort(moments)
        starts = np.array([one.start for one in self.spans]) / 1e6 - reach
        ends = np.array([one.end for one in self.spans]) / 1e6 + reach
        touched = np.searchsorted(moments, ends, side="right") > np.searchsorted(moments, starts, side="left")
        return FrameworkMetrics([one for one, hit in zip(self.spans, touched, strict=True) if hit])


def read_framework(path: Path) -> FrameworkMetrics:
    """Read every trace file below ``path`` (or beside it, if it is a file), including incomplete ones."""
    metrics = FrameworkMetrics()
    root = path if path.is_dir() else path.parent
    files = [one for one in root.rglob("*.json") if TRACE_FILE.match(one.name)]
    for file in sorted(files, key=lambda one: natural_order(one.name)):
        matched = TRACE_FILE.match(file.name)
        events = _events(file.read_text(encoding="utf-8", errors="replace"))
        if events is None or matched is None:
            metrics.unreadable.append(file.name)
            continue
        metrics.spans.extend(_spans(events, f"{matched['node']}-{matched['pid']}"))
    metrics.spans.sort(key=lambda one: one.start)
    return metrics


def _events(text: str) -> list[dict[str, Any]] | None:
    text = text.strip().rstrip(",")
    for candidate in (
        text,
        text + "]",
        text[: text.rfind("}") + 1] + "]",
        text[: text.rfind("},") + 1] + "]",
    ):
        try:
            events = json.loads(candidate)
        except ValueError:
            continue
        return [one for one in events if isinstance(one, dict)] if isinstance(events, list) else None
    return None


def _spans(events: list[dict[str, Any]], process: str) -> list[Span]:
    origin = 0.0
    phases: dict[int, str] = {}
    spans = []
    for event in events:
        arguments = event.get("args") or {}
        if event.get("ph") == "M" and event.get("name") == "process_name":
            origin = float(arguments.get("start_time_since_epoch_in_micros", origin))
            if "name" in arguments:
                phases[int(event.get("pid", 0))] = str(arguments["name"])
        elif event.get("ph") == "X" and "ts" in event:
            spans.append(
                Span(
                    process,
                    phases.get(int(event.get("pid", 0)), "Unknown"),
                    str(event.get("name", "")),
                    origin + float(event["ts"]),
                    float(event.get("dur", 0)),
                    arguments,
                )
            )
    return spans


def summary(metrics: FrameworkMetrics) -> dict[str, Any]:
    """What OverallFrameworkMetrics and the bottleneck rules report; empty without spans.

    Our interpretation of ``others`` in ``phase``: the time between the first and the last span without the
    steps.
    """
    if not metrics.spans:
        return {}
    devices = _totals(metrics, lambda one: one.phase, (CPU_OPERATORS, GPU_OPERATORS))
    steps = _totals(metrics, lambda one: one.phase, (STEP,))
    timed = [one for one in metrics.spans if not one.phase.startswith((CPU_OPERATORS, GPU_OPERATORS))]
    whole = max(one.end for one in timed) - min(one.start for one in timed) if timed else 0.0
    phase = {name: 100.0 * amount / whole for name, amount in steps.items()} if whole > 0 else {}
    found: dict[str, Any] = {
        "ratio": shares(devices),
        "phase": {**phase, "others": 100.0 - sum(phase.values())},
        "phase_time": {},
    }
    for label, device in (("CPU", CPU_OPERATORS), ("GPU", GPU_OPERATORS)):
        operators = _totals(metrics, lambda one: one.name, (device,))
        shown = {name: share for name, share in shares(operators).items() if share >= SHOWN_SHARE}
        if shown:
            ordered = sorted(shown, key=lambda name: -shown[name])
            found[label] = {name: shown[name] for name in ordered}
            found[f"{label}_total"] = {name: round(operators[name]) for name in ordered}
    found["general"] = shares(_totals(metrics, lambda one: one.phase, None))
    return found


def _totals(metrics: FrameworkMetrics, key: Any, phases: tuple[str, ...] | None) -> dict[str, float]:
    """Durations summed by ``key`` over ``phases``; None: everything but steps and operators."""
    totals: dict[str, float] = {}
    for one in metrics.spans:
        listed = one.phase.startswith(phases or (STEP, CPU_OPERATORS, GPU_OPERATORS))
        if listed == (phases is not None):
            totals[key(one)] = totals.get(key(one), 0.0) + one.duration
    return totals
