"""The profiler rules on system samples, as the AWS service computes them.

The service evaluates once per calendar minute over the samples so far, and these functions do the same. Every
definition was checked against report files of real jobs (``python -m debugger golden`` repeats that). Each
docstring states our interpretation of what those files leave open.
"""

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from debugger.profiler import statistics
from debugger.profiler.framework import summary
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.samples import Array, Series, SystemMetrics, tick_numbers

MINUTE_S = 60.0
LOAD_BINS = np.arange(0, 100, 2)
"""49 bins of two per cent; values above 98 are ignored, as in the service."""

Parameters = dict[str, Any]


def microseconds(seconds: float) -> int:
    """Epoch seconds as integer µs, the unit of the report files."""
    return round(seconds * 1_000_000)


def overall_system_usage(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Usage statistics by node; never fires. Datapoints is the maximum over the nodes."""
    report = RuleReport("OverallSystemUsage", parameters)
    system = evidence.system
    kinds: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("Network", "GPU", "CPU", "CPU memory", "GPU memory", "I/O")
    }
    for node in system.nodes:
        views = {
            "Network": system.network(node),
            "GPU": system.mean(node, "gpu", "GPUUtilization"),
            "CPU": system.mean(node, "cpu", "CPUUtilization"),
            "CPU memory": system.mean(node, "memory"),
            "GPU memory": system.mean(node, "gpu", "GPUMemoryUtilization"),
            "I/O": system.mean(node, "cpu", "I/OWaitPercentage"),
        }
        for kind, series in views.items():
            if len(series):
                kinds[kind][node] = statistics.usage(series.values)
        report.datapoints = max(report.datapoints, len(views["CPU"]))
    report.details = dict(kinds)
    return report


def low_gpu_utilization(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires for a GPU if p95 of the last ``window`` values is low, or high while p5 is low (fluctuating)."""
    report = RuleReport("LowGPUUtilization", parameters)
    window, patience = parameters["window"], parameters["patience"]
    minutes = evidence.system.minutes()
    for node in evidence.system.nodes:
        for gpu, utilization, _ in evidence.system.gpus(node):
            report.datapoints = len(utilization)
            for minute, values in _minutes_with_samples(utilization, minutes):
                if len(values) <= patience:
                    continue
                p95 = statistics.percentile(values[-window:], 95)
                p5 = statistics.percentile(values[-window:], 5)
                if p95 < parameters["threshold_p95"] or (
                    p95 > parameters["threshold_p95"] and p5 < parameters["threshold_p5"]
                ):
                    report.triggered += 1
                    report.details.setdefault(node, {})[gpu] = {
                        "gpu_max": float(values.max()),
                        "gpu_95": p95,
                        "gpu_5": p5,
                        **statistics.box(values),
                    }
                    _move_last(report, minute)
    report.violations = report.triggered
    return report


def batch_size(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires if CPU, GPU and GPU memory are all low over the window.

    Our interpretation for several GPUs: each is evaluated with its node's CPU. ``last_timestamp`` is the
    job's first minute, as in the published files.
    """
    report = RuleReport("BatchSize", parameters)
    system = evidence.system
    minutes = system.minutes()
    for node in system.nodes:
        cpu = system.mean(node, "cpu", "CPUUtilization")
        report.datapoints = len(cpu)
        for gpu, utilization, memory in system.gpus(node):
            for minute, values in _minutes_with_samples(utilization, minutes):
                seen = {
                    "cpu": cpu.until(minute + MINUTE_S),
                    gpu: values,
                    f"{gpu}_memory": memory.until(minute + MINUTE_S),
                }
                if _batch_is_small(list(seen.values()), parameters):
                    report.triggered += 1
                    boxes = {name: statistics.box(one) for name, one in seen.items()}
                    report.details.setdefault(node, {}).update(boxes)
    if report.triggered:
        report.details["last_timestamp"] = microseconds(minutes[0])
    report.violations = report.triggered
    return report


def _batch_is_small(seen: list[Array], parameters: Parameters) -> bool:
    limits = (
        parameters["cpu_threshold_p95"],
        parameters["gpu_threshold_p95"],
        parameters["gpu_memory_threshold_p95"],
    )
    if min(len(one) for one in seen) <= parameters["patience"]:
        return False
    return all(
        statistics.percentile(one[-parameters["window"] :], 95) < limit
        for one, limit in zip(seen, limits, strict=True)
    )


def gpu_memory_increase(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires at each sample whose moving average exceeds the previous one by ``increase`` points.

    With the default window of 10 that is ``mean(x[-10:]) - mean(x[-11:-2])``, the slices that the service
    uses.
    """
    report = RuleReport("GPUMemoryIncrease", parameters)
    window, patience = int(parameters["window"]), int(parameters["patience"])
    for node in evidence.system.nodes:
        for gpu, _, memory in evidence.system.gpus(node):
            report.datapoints = len(memory)
            increases = _increases(memory.values, window)
            first = len(memory) - len(increases)
            counted = np.arange(first, len(memory)) + 1 > patience
            fired = np.flatnonzero(counted & (increases > parameters["increase"]))
            report.triggered += len(fired)
            if len(fired):
                last = int(fired[-1])
                values = memory.values[: first + last + 1]
                report.details.setdefault(node, {})[gpu] = {
                    "increase": float(increases[last]),
                    "gpu_max": float(values.max()),
                    "p05": statistics.percentile(values, 5),
                    **statistics.box(values),
                }
                _move_last(report, _minute(float(memory.times[first + last])))
    report.violations = report.triggered
    return report


def _increases(values: Array, window: int) -> Array:
    """Increase of the moving average at every sample with ``window`` samples before it; may be empty."""
    if window < 2 or len(values) <= window:
        return np.empty(0)
    current = np.lib.stride_tricks.sliding_window_view(values, window)[1:].mean(axis=1)
    before = np.lib.stride_tricks.sliding_window_view(values, window - 1)[: len(current)].mean(axis=1)
    return np.asarray(current - before, dtype=np.float64)


def load_balancing(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires if two GPUs of a node are loaded differently.

    Our interpretation of the distance between their utilisation histograms: half the sum of absolute
    differences of the normalised histograms (total variation, 0 to 1), evaluated once a minute for every pair
    of GPUs.
    """
    report = RuleReport("LoadBalancing", parameters)
    minutes = evidence.system.minutes()
    for node in evidence.system.nodes:
        gpus = evidence.system.gpus(node)
        if not gpus:
            continue
        workloads = {gpu: np.histogram(series.values, bins=LOAD_BINS)[0] for gpu, series, _ in gpus}
        report.details[node] = {
            "workloads": {gpu: [int(one) for one in counts] for gpu, counts in workloads.items()}
        }
        report.datapoints = len(gpus[-1][1])
        for (_, one, _), (_, other, _) in combinations(gpus, 2):
            for minute, values in _minutes_with_samples(one, minutes):
                if len(values) > parameters["patience"]:
                    distance = _distance(values, other.until(minute + MINUTE_S))
                    report.triggered += distance > parameters["threshold"]
    report.violations = report.triggered
    return report


def _distance(one: Array, other: Array) -> float:
    histograms = [np.histogram(values, bins=LOAD_BINS)[0] for values in (one, other)]
    shares = [counts / max(1, counts.sum()) for counts in histograms]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def cpu_bottleneck(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires if a GPU is idle while a core is busy, for most of the job."""
    return _bottleneck("CPUBottleneck", evidence, parameters, "CPUUtilization", parameters["cpu_threshold"])


def io_bottleneck(evidence: Evidence, parameters: Parameters) -> RuleReport:
    """Fires if a GPU is idle while a core waits for I/O, for most of the job."""
    return _bottleneck("IOBottleneck", evidence, parameters, "I/OWaitPercentage", parameters["io_threshold"])


def _bottleneck(
    rule: str, evidence: Evidence, parameters: Parameters, dimension: str, core_threshold: float
) -> RuleReport:
    """Count instants with an idle GPU and a busy core; fire in each minute in which there are too many.

    Datapoints are the distinct sample times rounded to 10 ms, summed over the nodes (our interpretation of
    why they slightly exceed the number of ticks). The key of an instant is the time of its earliest sample.
    """
    report = RuleReport(rule, parameters)
    system = evidence.system
    low = 0
    bottlenecks: dict[str, dict[str, int]] = {}
    moments: list[Array] = []
    for node in system.nodes:
        moments.append(np.unique(np.round(system.node_times(node), 2)))
        low += sum(
            int((series.values < parameters["gpu_threshold"]).sum()) for _, series, _ in system.gpus(node)
        )
        bottlenecks.update(
            _node_bottlenecks(system, node, parameters["gpu_threshold"], dimension, core_threshold)
        )
    times = np.sort(np.concatenate(moments)) if moments else np.empty(0)
    report.datapoints = len(times)
    report.violations = len(bottlenecks)
    report.details = {"low_gpu_utilization": low, "bottlenecks": bottlenecks}
    found = np.sort(np.array([float(one) for one in bottlenecks]))
    for minute in system.minutes():
        points = int(np.searchsorted(times, minute + MINUTE_S))
        hits = int(np.searchsorted(found, minute + MINUTE_S))
        report.triggered += (
            points > parameters["patience"] and 100.0 * hits / points > parameters["threshold"]
        )
    if report.triggered:
        report.details.update(summary(evidence.framework.within(found)))
    return report


def _node_bottlenecks(
    system: SystemMetrics, node: str, gpu_threshold: float, dimension: str, core_threshold: float
) -> dict[str, dict[str, int]]:
    times = system.node_times(node)
    ticks = tick_numbers(times)
    if not len(ticks):
        return {}
    names = times[np.flatnonzero(np.diff(ticks, prepend=-1))]
    gpus = _count_by_tick(
        times, ticks, [series for _, series, _ in system.gpus(node)], lambda values: values < gpu_threshold
    )
    cores = _count_by_tick(
        times,
        ticks,
        list(system.each(node, "cpu", dimension).values()),
        lambda values: values > core_threshold,
    )
    return {
        str(float(names[tick])): {"GPUs": int(gpus[tick]), "CPUs": int(cores[tick])}
        for tick in np.flatnonzero((gpus > 0) & (cores > 0))
    }


def _count_by_tick(
    times: Array, ticks: npt.NDArray[np.int64], series: list[Series], meets: Any
) -> npt.NDArray[np.int64]:
    counts = np.zeros(int(ticks[-1]) + 1, dtype=np.int64)
    for one in series:
        hits = one.times[meets(one.values)]
        np.add.at(counts, ticks[np.searchsorted(times, hits)], 1)
    return counts


def _minute(moment: float) -> float:
    return float(np.floor(moment / MINUTE_S) * MINUTE_S)


def _minutes_with_samples(series: Series, minutes: list[float]) -> list[tuple[float, Array]]:
    """Each minute with a sample of ``series``, and all of its values up to the end of that minute."""
    found = []
    seen = 0
    for minute in minutes:
        values = series.until(minute + MINUTE_S)
        if len(values) > seen:
            found.append((minute, values))
        seen = len(values)
    return found


def _move_last(report: RuleReport, minute: float) -> None:
    moment = microseconds(minute)
    report.details["last_timestamp"] = max(moment, report.details.get("last_timestamp", 0))
