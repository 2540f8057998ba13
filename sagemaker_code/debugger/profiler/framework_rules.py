"""The profiler rules on steps and data loading.

The published report files show the fields of the rules but not always their arithmetic; each docstring states
what was inferred.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from debugger.profiler import statistics
from debugger.profiler.framework import Span, summary
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.system_rules import MINUTE_S, Parameters

ENOUGH_STEPS = 100
"""Published files have step statistics of a process only for more than this many steps of a phase."""
ENOUGH_LOADS = 10
"""In published files, Dataloader fired only with more than this many loading events."""


def overall_framework_metrics(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """How the time is distributed over phases, operators and devices; never fires."""
    return RuleReport("OverallFrameworkMetrics", parameters, details=summary(evidence.framework))


def max_initialization_time(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires once if more than ``threshold`` minutes pass before the first step."""
    report = RuleReport("MaxInitializationTime", parameters)
    steps = evidence.framework.steps()
    start, end = evidence.system.span()
    report.datapoints = len(steps)
    first_and_last = {"first": round(steps[0].start), "last": round(steps[-1].start)} if steps else {}
    report.details = {"step_num": first_and_last, "job_start": start, "job_end": end}
    waited = (steps[0].start / 1e6 if steps else end) - start
    if start and waited > parameters["threshold"] * 60:
        report.triggered = report.violations = 1
    return report


def step_outlier(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires in each minute in which a process has more than ``n_outliers`` steps of a phase that exceed the
    mean by ``stddev`` standard deviations (inferred: no other limit fits the published counts and
    histograms).

    ``violations`` sums the outliers over all firings; the histogram omits them.
    """
    report = RuleReport("StepOutlier", parameters)
    steps = evidence.framework.steps()
    report.datapoints = len(steps)
    report.details = {"step_details": {}}
    groups: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for one in steps:
        if parameters["mode"] is None or one.phase.endswith(f".{parameters['mode']}"):
            groups[one.process, one.phase].append(one)
    for (process, phase), members in groups.items():
        if len(members) <= ENOUGH_STEPS:
            continue
        described = _describe(members, phase, parameters["stddev"])
        known = report.details["step_details"].get(process)
        if known is None or described["number_of_outliers"] > known["number_of_outliers"]:
            report.details["step_details"][process] = described
        fired = [
            count for count in _outliers_by_minute(members, parameters) if count > parameters["n_outliers"]
        ]
        report.triggered += len(fired)
        report.violations += sum(fired)
    if report.triggered:
        found = summary(evidence.framework)
        report.details.update({key: found[key] for key in ("ratio", "phase", "phase_time", "general")})
    return report


def _outlier_limit(durations: Any, factor: float) -> float:
    return float(durations.mean() + factor * durations.std())


def _outliers_by_minute(members: list[Span], parameters: Parameters) -> list[int]:
    durations = np.array([one.duration for one in members])
    minutes = np.array([one.end for one in members]) // (MINUTE_S * 1e6)
    counts = []
    for minute in np.unique(minutes):
        seen = durations[minutes <= minute]
        if len(seen) > ENOUGH_STEPS:
            counts.append(int((seen > _outlier_limit(seen, parameters["stddev"])).sum()))
    return counts


def _describe(members: list[Span], phase: str, factor: float) -> dict[str, Any]:
    seconds = np.array([one.duration for one in members]) / 1e6
    out = seconds > _outlier_limit(seconds, factor)
    p99, p95, p50 = (float(one) for one in np.percentile(seconds, [99, 95, 50]))
    return {
        "step_stats": {
            "mean": float(seconds.mean()),
            "max": float(seconds.max()),
            "p99": p99,
            "p95": p95,
            "p50": p50,
            "min": float(seconds.min()),
        },
        "number_of_outliers": int(out.sum()),
        "phase": phase,
        "stddev": round(float(seconds.std()), 2),
        **statistics.histogram(seconds[~out]),
        "step_numbers": [
            str(one.arguments.get("step_num", "")) for one, hit in zip(members, out, strict=True) if hit
        ],
    }


def dataloader(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires if the number of loader processes is outside ``min_threshold`` to ``max_threshold`` per cent of
    the cores (inferred: only with more than ten loading events).
    """
    report = RuleReport("Dataloader", parameters)
    loads = evidence.framework.loading()
    settings = evidence.framework.loader_settings()
    report.datapoints = len(loads)
    if not loads:
        return report
    workers = int(settings.get("num_workers", 0))
    cores = max((evidence.system.cores(node) for node in evidence.system.nodes), default=0)
    cores = cores or int(settings.get("cores", 0))
    seconds = np.array([one.duration for one in loads]) / 1e6
    p25, p50, p95 = (float(one) for one in np.percentile(seconds, [25, 50, 95]))
    loaders = max(1, workers)
    report.details = {
        "pin_memory": bool(settings.get("pin_memory", False)),
        "num_workers": workers,
        "cores": cores,
        "dataloaders": loaders,
        "dataloading_time": {"p25": p25, "p50": p50, "p95": p95, **statistics.histogram(seconds)},
    }
    share = 100.0 * loaders / cores if cores else 100.0
    outside = share < parameters["min_threshold"] or share > parameters["max_threshold"]
    if outside and len(loads) > ENOUGH_LOADS:
        report.triggered = report.violations = 1
    return report
