"""``profiler-report.html``: a self-contained page from the rules' reports, the samples and the advice.

This module prepares the content; ``templates/`` holds the HTML.
"""

import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from debugger.profiler import statistics
from debugger.profiler.advice import Advice, seconds, waiting_for_data
from debugger.profiler.framework import EVAL, TRAIN
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.svg import Chart, Line, amount, box_chart, clock, histogram_chart, time_chart

MEANINGS = {
    "BatchSize": "CPU, GPU and GPU memory are all little used, so the batch could be larger.",
    "CPUBottleneck": "The GPU idles while a CPU core is busy.",
    "Dataloader": "Loading processes are too few or too many for the cores.",
    "GPUMemoryIncrease": "GPU memory grows in jumps.",
    "IOBottleneck": "The GPU idles while a core waits for I/O.",
    "LoadBalancing": "GPUs of one node are loaded unevenly.",
    "LowGPUUtilization": "The GPU is used little or irregularly.",
    "MaxInitializationTime": "The first step came late.",
    "OverallFrameworkMetrics": "The shares of phases and operators in the time.",
    "OverallSystemUsage": "Percentiles of the hardware's use by node.",
    "StepOutlier": "Some steps take far longer than the rest.",
}
REMEDIES = {
    "BatchSize": "Raise batch-size, or take a smaller instance.",
    "CPUBottleneck": "More loader processes, lighter augmentation, or more cores.",
    "Dataloader": "Set num_workers near the number of cores.",
    "GPUMemoryIncrease": "Keep no tensors across steps; store loss.item().",
    "IOBottleneck": "Pack small files, use FastFile mode or a larger volume.",
    "LoadBalancing": "DistributedDataParallel, equal shards.",
    "LowGPUUtilization": "Look for bottlenecks, reduce synchronisation, raise batch-size.",
    "MaxInitializationTime": "FastFile input, fewer files, fewer packages to install.",
    "OverallFrameworkMetrics": "Information only.",
    "OverallSystemUsage": "Information only.",
    "StepOutlier": "persistent_workers, rarer checkpoints, warm-up outside the loop.",
}


def render(job: str, evidence: Evidence, reports: Mapping[str, RuleReport], advice: list[Advice]) -> str:
    """The whole page; ``job`` may be empty."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    operators = reports["OverallFrameworkMetrics"].details
    return environment.get_template("page.html").render(
        title=f"Profiler report: {job}" if job else "Profiler report",
        tiles=_tiles(evidence, reports),
        advice=advice,
        job=_job(evidence),
        system=list(_system(evidence)),
        usage=_usage(reports["OverallSystemUsage"]),
        rules=sorted(reports.values(), key=lambda one: (-one.triggered, one.rule)),
        states={name: _state(report) for name, report in reports.items()},
        meanings=MEANINGS,
        remedies=REMEDIES,
        steps=_steps(evidence, reports["StepOutlier"]),
        loading=_loading(evidence, reports["Dataloader"]),
        framework=list(_framework(operators)),
        has_operators="CPU" in operators or "GPU" in operators,
        gpus=_gpus(evidence),
        batch=reports["BatchSize"],
        boxes=_boxes(evidence),
        bottlenecks=[_bottleneck(reports[name]) for name in ("CPUBottleneck", "IOBottleneck")],
        memory=reports["GPUMemoryIncrease"],
        memory_chart=_gpu_memory(evidence),
        notes=_notes(evidence),
    )


def _tiles(evidence: Evidence, reports: Mapping[str, RuleReport]) -> list[tuple[str, str]]:
    start, end = evidence.system.span()
    fired = sum(one.triggered > 0 for one in reports.values())
    return [
        ("duration", clock(end - start) if end > start else "none"),
        ("nodes", str(len(evidence.system.nodes))),
        ("GPUs", str(sum(len(evidence.system.gpus(node)) for node in evidence.system.nodes))),
        ("steps", str(len(evidence.framework.steps()))),
        ("rules that fired", f"{fired} of {len(reports)}"),
    ]


def _time(value: float) -> str:
    return datetime.datetime.fromtimestamp(value, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _job(evidence: Evidence) -> list[list[str]]:
    """The parts of the job with their durations; empty without samples and steps."""
    start, end = evidence.system.span()
    steps = evidence.framework.steps()
    if not start and steps:
        start, end = steps[0].start / 1e6, steps[-1].end / 1e6
    if not start:
        return []
    whole = max(end - start, 1e-9)
    parts = [("Whole job", whole)]
    if steps:
        first, last = steps[0].start / 1e6, max(one.end for one in steps) / 1e6
        parts += [
            ("Initialisation, up to the first step", first - start),
            ("Training loop", last - first),
            ("Finalisation, after the last step", end - last),
        ]
    return [
        ["Start", _time(start), ""],
        ["End", _time(end), ""],
        *([name, seconds(max(0.0, part)), f"{100 * max(0.0, part) / whole:.1f} %"] for name, part in parts),
    ]


def _system(evidence: Evidence) -> Iterator[tuple[str, Chart | None]]:
    system = evidence.system
    for node in system.nodes:
        series = [
            ("GPU", system.mean(node, "gpu", "GPUUtilization")),
            ("CPU", system.mean(node, "cpu", "CPUUtilization")),
            ("memory", system.mean(node, "memory")),
            ("GPU memory", system.mean(node, "gpu", "GPUMemoryUtilization")),
            ("I/O wait", system.mean(node, "cpu", "I/OWaitPercentage")),
        ]
        lines = [Line(label, one.times, one.values, number) for number, (label, one) in enumerate(series, 1)]
        yield f"{node}: utilisation", time_chart(lines, system.span(), "%", 100.0)
        network = system.network(node)
        if len(network):
            line = Line("received + sent", network.times, network.values, 1)
            yield f"{node}: network", time_chart([line], system.span(), "B/s")


def _usage(report: RuleReport) -> list[list[str]]:
    percentiles = ("max", "p99", "p95", "p50", "min")
    units = {"Network": "B/s"}
    return [
        [kind, node, *(amount(usage[key], units.get(kind, "%")) for key in percentiles)]
        for kind, by_node in report.details.items()
        for node, usage in by_node.items()
    ]


def _state(report: RuleReport) -> str:
    if report.rule.startswith("Overall"):
        return "information"
    if report.triggered:
        return "fired"
    return "no issues" if report.datapoints else "insufficient data"


def _steps(evidence: Evidence, report: RuleReport) -> dict[str, Any] | None:
    """The durations of steps as dots, in a table and as histograms; None without steps."""
    lines = []
    for label, phase, colour in (("training", TRAIN, 1), ("evaluation", EVAL, 3)):
        found = evidence.framework.of(phase)
        if found:
            times, durations = np.array([(one.start, one.duration) for one in found]).T / 1e6
            lines.append(Line(label, times, durations, colour))
    if not lines:
        return None
    start = min(float(one.times.min()) for one in lines)
    end = max(float(one.times.max()) for one in lines)
    histograms = [
        (
            f"{process}, {described['phase']}: {described['number_of_outliers']} outliers (beyond "
            f"{report.parameters['stddev']:g} standard deviations, not in the histogram)",
            histogram_chart(described["probs"], described["binedges"], "s"),
        )
        for process, described in report.details["step_details"].items()
    ]
    return {
        "chart": time_chart(lines, (start, max(end, start + 1)), "s", dots=True),
        "rows": [[one.label, str(len(one.values)), *_spread(one)] for one in lines],
        "histograms": histograms,
    }


def _spread(line: Line) -> list[str]:
    """Mean, p50, p95, p99, maximum and minimum of durations."""
    percentiles = np.percentile(line.values, [50, 95, 99])
    values = (line.values.mean(), *percentiles, line.values.max(), line.values.min())
    return [seconds(float(value)) for value in values]


def _loading(evidence: Evidence, report: RuleReport) -> dict[str, Any] | None:
    """The loader's settings and waits; None without traces of a loader."""
    loads = evidence.framework.loading()
    if not loads:
        return None
    waiting = waiting_for_data(evidence.framework)
    details = report.details
    spread = details["dataloading_time"]
    return {
        "waiting": None if waiting is None else 100 * waiting.time_share,
        "row": [
            *(details[name] for name in ("num_workers", "cores", "pin_memory")),
            len(loads),
            *(seconds(spread[key]) for key in ("p25", "p50", "p95")),
        ],
        "histogram": histogram_chart(spread["probs"], spread["binedges"], "s"),
    }


def _framework(details: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, float, str]], int]]:
    """Bars with heading and colour."""
    headings = {
        "phase": "Share of the job's time",
        "general": "Between the steps",
        "ratio": "Operators by device",
    }
    for key, heading in headings.items():
        rows = [(name, max(0.0, share), f"{share:.1f} %") for name, share in details.get(key, {}).items()]
        if rows:
            yield heading, rows, 2
    for device, colour in (("CPU", 2), ("GPU", 1)):
        if device in details:
            totals = details[f"{device}_total"]
            operators = details[device].items()
            rows = [(n, s, f"{s:.1f} %, {seconds(totals[n] / 1e6)}") for n, s in operators]
            yield f"{device} operators", rows, colour


def _gpus(evidence: Evidence) -> list[tuple[str, Chart]]:
    charts = []
    for node in evidence.system.nodes:
        for gpu, series, _ in evidence.system.gpus(node):
            counts, edges = np.histogram(series.values, bins=np.arange(0, 102, 2))
            idle = 100 * float((series.values < 10).mean())
            heading = f"{node}, {gpu}: below 10 % in {idle:.0f} % of the samples"
            charts.append((heading, histogram_chart(counts.tolist(), edges.tolist(), "%")))
    return charts


def _boxes(evidence: Evidence) -> Chart | None:
    """The use of CPU, GPU and GPU memory by node; None without samples."""
    rows: list[tuple[str, dict[str, float]]] = []
    for node in evidence.system.nodes:
        cpu = evidence.system.mean(node, "cpu", "CPUUtilization")
        if len(cpu):
            rows.append((f"{node} CPU", statistics.box(cpu.values)))
        for gpu, utilization, memory in evidence.system.gpus(node):
            rows.append((f"{node} {gpu}", statistics.box(utilization.values)))
            if len(memory):
                rows.append((f"{node} {gpu} memory", statistics.box(memory.values)))
    return box_chart(rows) if rows else None


def _bottleneck(report: RuleReport) -> list[str]:
    share = 100 * report.violations / report.datapoints if report.datapoints else 0.0
    return [
        report.rule,
        str(report.datapoints),
        str(report.details["low_gpu_utilization"]),
        str(report.violations),
        f"{share:.1f} %",
        f"{report.parameters['threshold']} %",
        "yes" if report.triggered else "no",
    ]


def _gpu_memory(evidence: Evidence) -> Chart | None:
    lines: list[Line] = []
    for node in evidence.system.nodes:
        for gpu, _, memory in evidence.system.gpus(node):
            lines.append(Line(f"{node} {gpu}", memory.times, memory.values, 1 + len(lines) % 5))
    return time_chart(lines, evidence.system.span(), "%", 100.0)


def _notes(evidence: Evidence) -> list[str]:
    notes = evidence.system.notes
    return [
        f"{notes.lines} lines in {notes.files} files.",
        *(f"{one}." for one in notes.sentences()),
        *(f"The trace {name} could not be read." for name in evidence.framework.unreadable),
    ]
