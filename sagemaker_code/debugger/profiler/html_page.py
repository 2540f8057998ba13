"""``profiler-report.html``: one self-contained page from the rules' reports, the samples and the advice."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from debugger.profiler import charts, statistics
from debugger.profiler.advice import Advice, seconds, waiting_for_data
from debugger.profiler.framework import EVAL, TRAIN
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.style import STYLE

MEANING = {
    "BatchSize": (
        "CPU, GPU and GPU memory are all little used, so the batch could be larger.",
        "Raise batch-size, or take a smaller instance.",
    ),
    "CPUBottleneck": (
        "The GPU idles while a CPU core is busy.",
        "More loader processes, lighter augmentation, or more cores.",
    ),
    "Dataloader": (
        "Loading processes are too few or too many for the cores.",
        "Set num_workers near the number of cores.",
    ),
    "GPUMemoryIncrease": ("GPU memory grows in jumps.", "Keep no tensors across steps; store loss.item()."),
    "IOBottleneck": (
        "The GPU idles while a core waits for I/O.",
        "Pack small files, use FastFile mode or a larger volume.",
    ),
    "LoadBalancing": ("GPUs of one node are loaded unevenly.", "DistributedDataParallel, equal shards."),
    "LowGPUUtilization": (
        "The GPU is used little or in fits and starts.",
        "Look for bottlenecks, reduce synchronisation, raise batch-size.",
    ),
    "MaxInitializationTime": (
        "The first step came late.",
        "FastFile input, fewer files, fewer packages to install.",
    ),
    "OverallFrameworkMetrics": ("Where the time went, by phase and operator.", "Information only."),
    "OverallSystemUsage": ("Percentiles of the hardware's use by node.", "Information only."),
    "StepOutlier": (
        "Some steps take far longer than the rest.",
        "persistent_workers, rarer checkpoints, warm-up outside the loop.",
    ),
}


def render(job: str, evidence: Evidence, reports: Mapping[str, RuleReport], advice: list[Advice]) -> str:
    """The whole page."""
    sections = [
        ("Advice", _advice(advice)),
        ("Training job", _job(evidence)),
        ("System usage", _system(evidence, reports["OverallSystemUsage"])),
        ("Rules", _rules(reports)),
        ("Training loop: step durations", _steps(evidence, reports["StepOutlier"])),
        ("Data loading", _loading(evidence, reports["Dataloader"])),
        ("Framework: phases and operators", _operators(reports["OverallFrameworkMetrics"])),
        ("GPU utilisation and balance", _gpus(evidence)),
        ("Batch size", _batch(evidence, reports["BatchSize"])),
        ("CPU and I/O bottlenecks", _bottlenecks(evidence, reports)),
        ("GPU memory", _gpu_memory(evidence, reports["GPUMemoryIncrease"])),
        ("The samples", _notes(evidence)),
    ]
    links = "".join(f'<a href="#s{number}">{escape(title)}</a>' for number, (title, _) in enumerate(sections))
    body = "".join(
        f'<section id="s{number}"><h2>{escape(title)}</h2>{content}</section>'
        for number, (title, content) in enumerate(sections)
    )
    title = f"Profiler report: {job}" if job else "Profiler report"
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><header><h1>{escape(title)}</h1>{_headline(evidence, reports)}</header>"
        f"<nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def _headline(evidence: Evidence, reports: Mapping[str, RuleReport]) -> str:
    start, end = evidence.system.span()
    fired = [name for name, one in reports.items() if one.triggered]
    tiles = [
        ("duration", charts.clock(end - start) if end > start else "none"),
        ("nodes", str(len(evidence.system.nodes))),
        ("GPUs", str(sum(len(evidence.system.gpus(node)) for node in evidence.system.nodes))),
        ("steps", str(len(evidence.framework.steps()))),
        ("rules that fired", f"{len(fired)} of {len(reports)}"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f"<div><b>{escape(v)}</b>{escape(n)}</div>" for n, v in tiles)
        + "</div>"
    )


def _advice(advice: list[Advice]) -> str:
    if not advice:
        return '<p class="none">Nothing stands out.</p>'
    return "".join(
        f'<div class="advice {one.level}"><b>{escape(one.title)}</b><p>{escape(one.text)}</p></div>'
        for one in advice
    )


def table(head: list[str], rows: list[list[str]], *, numeric: int = 1) -> str:
    """A table whose columns from ``numeric`` on are right-aligned; cells are escaped."""
    top = "".join(
        f"<th{' class=n' if index >= numeric else ''}>{escape(one)}</th>" for index, one in enumerate(head)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if index >= numeric else ''}>{escape(cell)}</td>"
            for index, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _moment(value: float) -> str:
    return datetime.datetime.fromtimestamp(value, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _job(evidence: Evidence) -> str:
    start, end = evidence.system.span()
    steps = evidence.framework.steps()
    if not start and steps:
        start, end = steps[0].start / 1e6, steps[-1].end / 1e6
    if not start:
        return '<p class="none">The job left neither samples nor steps.</p>'
    rows = [["Start", _moment(start), ""], ["End", _moment(end), ""]]
    whole = max(end - start, 1e-9)
    parts = [("Whole job", whole)]
    if steps:
        first, last = steps[0].start / 1e6, max(one.end for one in steps) / 1e6
        parts += [
            ("Initialisation, up to the first step", first - start),
            ("Training loop", last - first),
            ("Finalisation, after the last step", end - last),
        ]
    rows += [[name, seconds(max(0.0, span)), f"{100 * max(0.0, span) / whole:.1f} %"] for name, span in parts]
    return table(["", "", "share"], rows)


def _system(evidence: Evidence, report: RuleReport) -> str:
    system, parts = evidence.system, []
    span = system.span()
    for node in system.nodes:
        lines = [
            ("GPU", system.mean(node, "gpu", "GPUUtilization"), 1),
            ("CPU", system.mean(node, "cpu", "CPUUtilization"), 2),
            ("memory", system.mean(node, "memory"), 3),
            ("GPU memory", system.mean(node, "gpu", "GPUMemoryUtilization"), 4),
            ("I/O wait", system.mean(node, "cpu", "I/OWaitPercentage"), 5),
        ]
        drawn = [charts.Line(label, one.times, one.values, colour) for label, one, colour in lines]
        parts.append(f"<h3>{escape(node)}: utilisation</h3>{charts.time_chart(drawn, span, '%', 100.0)}")
        network = system.network(node)
        if len(network):
            line = charts.Line("received + sent", network.times, network.values, 1)
            parts.append(f"<h3>{escape(node)}: network</h3>{charts.time_chart([line], span, 'B/s')}")
    rows = []
    for kind, by_node in report.details.items():
        unit = "B/s" if kind == "Network" else "%"
        for node, usage in by_node.items():
            rows.append(
                [
                    kind,
                    node,
                    *(charts.amount(usage[key], unit) for key in ("max", "p99", "p95", "p50", "min")),
                ]
            )
    return "".join(parts) + table(["", "node", "max", "p99", "p95", "p50", "min"], rows, numeric=2)


def _rules(reports: Mapping[str, RuleReport]) -> str:
    rows = []
    for name, one in sorted(reports.items(), key=lambda pair: (-pair[1].triggered, pair[0])):
        meaning, remedy = MEANING[name]
        limits = ", ".join(f"{key} {value}" for key, value in one.parameters.items())
        state = "fired" if one.triggered else "quiet" if one.datapoints else "nothing to judge"
        if name.startswith("Overall"):
            state = "information"
        rows.append(
            f'<tr class="{state.split(maxsplit=1)[0]}">'
            f"<td><b>{name}</b><br>{escape(meaning)}</td><td>{escape(remedy)}</td>"
            f'<td class="n">{one.triggered}</td><td class="n">{one.datapoints}</td>'
            f"<td><span class=state>{state}</span></td><td class=small>{escape(limits)}</td></tr>"
        )
    head = "<th>rule<th>what to try<th class=n>triggered<th class=n>datapoints<th><th>parameters"
    body = "".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _steps(evidence: Evidence, report: RuleReport) -> str:
    lines = []
    for label, phase, colour in (("training", TRAIN, 1), ("evaluation", EVAL, 3)):
        found = evidence.framework.of(phase)
        times, durations = (
            np.array([one.start for one in found]) / 1e6,
            np.array([one.duration for one in found]) / 1e6,
        )
        lines.append(charts.Line(label, times, durations, colour))
    if not any(len(one.values) for one in lines):
        return '<p class="none">No step was recorded, so step durations are not known.</p>'
    start = min(float(one.times.min()) for one in lines if len(one.times))
    end = max(float(one.times.max()) for one in lines if len(one.times))
    rows = []
    for one in lines:
        if len(one.values):
            usage = np.percentile(one.values, [50, 95, 99])
            rows.append(
                [
                    one.label,
                    str(len(one.values)),
                    *(
                        seconds(float(value))
                        for value in (one.values.mean(), *usage, one.values.max(), one.values.min())
                    ),
                ]
            )
    parts = [
        charts.time_chart(lines, (start, max(end, start + 1)), "s", dots=True),
        table(["steps", "number", "mean", "p50", "p95", "p99", "max", "min"], rows),
    ]
    for process, described in report.details["step_details"].items():
        parts.append(
            f"<h3>{escape(process)}, {escape(described['phase'])}: {described['number_of_outliers']} "
            f"outliers (beyond {report.parameters['stddev']:g} standard deviations, left out of the "
            "histogram)</h3>" + charts.histogram_chart(described["probs"], described["binedges"], "s")
        )
    return "".join(parts)


def _loading(evidence: Evidence, report: RuleReport) -> str:
    loads = evidence.framework.loading()
    if not loads:
        return '<p class="none">No data loading was recorded.</p>'
    parts = []
    waiting = waiting_for_data(evidence.framework)
    if waiting is not None:
        share = 100 * waiting.time_share
        parts.append(
            f'<div class="split">'
            f'<span class="k4" style="width:{share:.1f}%">waiting for data {share:.0f} %</span>'
            f'<span class="k1" style="width:{100 - share:.1f}%">computing {100 - share:.0f} %</span></div>'
        )
    spread = report.details["dataloading_time"]
    parts.append(
        table(
            ["num_workers", "cores", "pin_memory", "batches", "p25", "p50", "p95"],
            [
                [
                    str(report.details["num_workers"]),
                    str(report.details["cores"]),
                    str(report.details["pin_memory"]),
                    str(len(loads)),
                    *(seconds(spread[key]) for key in ("p25", "p50", "p95")),
                ]
            ],
            numeric=0,
        )
    )
    parts.append(
        "<h3>Time to get a batch</h3>" + charts.histogram_chart(spread["probs"], spread["binedges"], "s")
    )
    return "".join(parts)


def _operators(report: RuleReport) -> str:
    details = report.details
    if not details:
        return '<p class="none">No framework metrics were recorded.</p>'
    parts = []
    names = {
        "phase": "Share of the job's time",
        "general": "Between the steps",
        "ratio": "Operators by device",
    }
    for key, title in names.items():
        rows = [(name, max(0.0, share), f"{share:.1f} %") for name, share in details[key].items()]
        if rows:
            parts.append(f"<h3>{title}</h3>{charts.bar_list(rows, 2)}")
    for device, colour in (("CPU", 2), ("GPU", 1)):
        if device in details:
            totals = details[f"{device}_total"]
            rows = [(n, s, f"{s:.1f} %, {seconds(totals[n] / 1e6)}") for n, s in details[device].items()]
            parts.append(f"<h3>{device} operators</h3>{charts.bar_list(rows, colour)}")
    if "CPU" not in details and "GPU" not in details:
        parts.append(
            '<p class="none">No operators were recorded: operator profiling was off for this run.</p>'
        )
    return "".join(parts)


def _gpus(evidence: Evidence) -> str:
    parts = []
    for node in evidence.system.nodes:
        for gpu, series, _ in evidence.system.gpus(node):
            counts, edges = np.histogram(series.values, bins=np.arange(0, 102, 2))
            idle = 100 * float((series.values < 10).mean())
            parts.append(
                f"<h3>{escape(node)}, {escape(gpu)}: below 10 % in {idle:.0f} % of the samples</h3>"
                + charts.histogram_chart([int(one) for one in counts], [float(one) for one in edges], "%")
            )
    return "".join(parts) or '<p class="none">The job used no GPU.</p>'


def _batch(evidence: Evidence, report: RuleReport) -> str:
    rows: list[tuple[str, dict[str, float]]] = []
    for node in evidence.system.nodes:
        cpu = evidence.system.mean(node, "cpu", "CPUUtilization")
        if len(cpu):
            rows.append((f"{node} CPU", statistics.box(cpu.values)))
        for gpu, utilization, memory in evidence.system.gpus(node):
            rows.append((f"{node} {gpu}", statistics.box(utilization.values)))
            if len(memory):
                rows.append((f"{node} {gpu} memory", statistics.box(memory.values)))
    if not rows:
        return '<p class="none">No samples.</p>'
    said = (
        f"The rule fired {report.triggered} times: over a window of {report.parameters['window']} samples "
        "everything stayed low."
        if report.triggered
        else "The rule did not fire."
    )
    legend = "The dot marks p95, the whiskers reach 1.5 interquartile ranges."
    return f"<p>{said} {legend}</p>{charts.box_chart(rows)}"


def _bottlenecks(evidence: Evidence, reports: Mapping[str, RuleReport]) -> str:
    if not any(evidence.system.gpus(node) for node in evidence.system.nodes):
        return '<p class="none">These rules ask when a GPU idles; the job used none.</p>'
    rows = []
    for name in ("CPUBottleneck", "IOBottleneck"):
        one = reports[name]
        share = 100 * one.violations / one.datapoints if one.datapoints else 0.0
        rows.append(
            [
                name,
                str(one.datapoints),
                str(one.details["low_gpu_utilization"]),
                str(one.violations),
                f"{share:.1f} %",
                f"{one.parameters['threshold']} %",
                "yes" if one.triggered else "no",
            ]
        )
    return table(["", "instants", "GPU low", "bottlenecks", "share", "limit", "fired"], rows)


def _gpu_memory(evidence: Evidence, report: RuleReport) -> str:
    lines: list[Any] = []
    for node in evidence.system.nodes:
        for gpu, _, memory in evidence.system.gpus(node):
            lines.append(charts.Line(f"{node} {gpu}", memory.times, memory.values, 1 + len(lines) % 5))
    if not lines:
        return '<p class="none">The job used no GPU.</p>'
    increase = report.parameters["increase"]
    said = f"{report.triggered} samples rose by more than {increase} points over the moving average."
    return f"<p>{said}</p>{charts.time_chart(lines, evidence.system.span(), '%', 100.0)}"


def _notes(evidence: Evidence) -> str:
    notes = evidence.system.notes
    sentences = [f"{notes.lines} lines in {notes.files} files.", *(f"{one}." for one in notes.sentences())]
    sentences += [f"The trace {name} could not be read." for name in evidence.framework.unreadable]
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"
