"""Advice from the profiler's numbers, in plain sentences with the next thing to try."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from debugger.profiler import statistics
from debugger.profiler.framework import EVAL, TRAIN, FrameworkMetrics
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.samples import SystemMetrics

WAITING_SHARE = 0.1
"""Below this share of steps that wait for data, loading is not a problem."""
ENOUGH_LOADED_STEPS = 5
LOW_P95, HIGH_P95 = 70.0, 90.0


@dataclass(frozen=True)
class Advice:
    """``level`` is ``act`` (it costs time or money), ``note`` or ``good``."""

    level: str
    title: str
    text: str


@dataclass(frozen=True)
class Waiting:
    """How training steps wait for data; ``wait`` and ``compute`` are medians in seconds."""

    steps: int
    waiting_share: float
    wait: float
    compute: float
    time_share: float


def waiting_for_data(metrics: FrameworkMetrics) -> Waiting | None:
    """Compare each training step with the wait before it; None for fewer than five steps.

    A step counts as waiting if loading its batch took longer than computing on it.
    """
    waits = {
        (one.process, one.arguments.get("step_num")): one.duration
        for one in metrics.loading()
        if one.arguments.get("mode", "TRAIN") == "TRAIN"
    }
    pairs = [
        (waits[key], one.duration)
        for one in metrics.of(TRAIN)
        if (key := (one.process, one.arguments.get("step_num"))) in waits
    ]
    if len(pairs) < ENOUGH_LOADED_STEPS:
        return None
    wait, compute = np.array(pairs).T / 1e6
    return Waiting(
        len(pairs),
        float((wait > compute).mean()),
        float(np.median(wait)),
        float(np.median(compute)),
        float(wait.sum() / max(1e-12, wait.sum() + compute.sum())),
    )


def advise(evidence: Evidence, reports: Mapping[str, RuleReport]) -> list[Advice]:
    """All advice for a job, the most pressing first."""
    found = [
        *_data_loading(evidence),
        *(_node(evidence.system, node) for node in evidence.system.nodes),
        *_gpu_rules(reports),
        *_steps(reports),
        *_initialization(reports),
    ]
    if evidence.system.empty():
        found.insert(
            0,
            Advice("note", "No system samples", "The sample files are empty, so hardware use is not known."),
        )
    order = {"act": 0, "note": 1, "good": 2}
    return sorted(found, key=lambda one: order[one.level])


def recommended_workers(workers: int, cores: int, waiting: Waiting) -> int:
    """Loader processes that would keep up with the computation, at most one per core (or four)."""
    needed = math.ceil(max(1, workers) * waiting.wait / max(waiting.compute, 1e-6)) + 1
    return max(1, min(needed, cores or 4))


def _data_loading(evidence: Evidence) -> list[Advice]:
    waiting = waiting_for_data(evidence.framework)
    if waiting is None:
        return []
    system = evidence.system
    device = "GPU" if any(system.gpus(node) for node in system.nodes) else "model"
    settings = evidence.framework.loader_settings()
    workers = int(settings.get("num_workers", 0))
    cores = max((system.cores(node) for node in system.nodes), default=0) or int(settings.get("cores", 0))
    numbers = (
        f"{100 * waiting.waiting_share:.0f} % of {waiting.steps} training steps waited longer for their "
        f"batch than they computed (median {seconds(waiting.wait)} against {seconds(waiting.compute)}; "
        f"{100 * waiting.time_share:.0f} % of the loop's time is waiting)"
    )
    if waiting.waiting_share < WAITING_SHARE:
        return [Advice("good", "Data arrives in time", f"Only {numbers}.")]
    better = recommended_workers(workers, cores, waiting)
    if better > workers:
        remedy = f"raise num_workers from {workers} to {better}"
    else:
        remedy = (
            f"num_workers is already {workers} on {cores} cores: store smaller or pre-resized images, "
            "move augmentation to the GPU, or take an instance with more cores"
        )
    return [Advice("act", f"The {device} waits for data", f"{numbers}; {remedy}.")]


def _node(system: SystemMetrics, node: str) -> Advice:
    cpu = system.mean(node, "cpu", "CPUUtilization").values
    gpu = system.mean(node, "gpu", "GPUUtilization").values
    if not len(cpu):
        return Advice("note", f"{node}: no CPU samples", "The node's CPU use is not known.")
    cpu_p95, cpu_p50 = statistics.percentile(cpu, 95), statistics.percentile(cpu, 50)
    if not len(gpu):
        if cpu_p95 >= HIGH_P95:
            return Advice(
                "act",
                f"{node}: the CPU is the limit",
                f"No GPU; CPU p95 is {cpu_p95:.0f} % (median {cpu_p50:.0f} %). A GPU instance "
                "(ml.g4dn.xlarge) would train the same model several times faster.",
            )
        return Advice(
            "note",
            f"{node}: no GPU",
            f"The job ran on CPU alone, at p95 {cpu_p95:.0f} % (median {cpu_p50:.0f} %); the GPU rules "
            "had insufficient data.",
        )
    gpu_p95, gpu_p50 = statistics.percentile(gpu, 95), statistics.percentile(gpu, 50)
    if gpu_p95 < LOW_P95 <= cpu_p95:
        return Advice(
            "act",
            f"{node}: the CPU holds the GPU back",
            f"GPU p95 is {gpu_p95:.0f} % while CPU p95 is {cpu_p95:.0f} %. Move work off the CPU (more "
            "loader processes, lighter augmentation) or take an instance with more cores.",
        )
    if gpu_p95 < LOW_P95 and cpu_p95 < LOW_P95:
        return Advice(
            "act",
            f"{node}: larger than the job needs",
            f"GPU p95 is {gpu_p95:.0f} % and CPU p95 {cpu_p95:.0f} %. Take a smaller instance or a larger "
            "batch.",
        )
    return Advice(
        "note", f"{node}: in use", f"Median use is {gpu_p50:.0f} % of the GPU and {cpu_p50:.0f} % of the CPU."
    )


def _gpu_rules(reports: Mapping[str, RuleReport]) -> list[Advice]:
    found = []
    batch = reports["BatchSize"]
    if batch.triggered:
        found.append(
            Advice(
                "act",
                "The batch is small for this GPU",
                f"In {batch.triggered} of the minutes evaluated, p95 of CPU, GPU and GPU memory were all "
                f"below {batch.parameters['gpu_threshold_p95']} %. Double batch-size until GPU memory "
                "passes 80 %, and scale lr with it.",
            )
        )
    memory = reports["GPUMemoryIncrease"]
    if memory.triggered:
        found.append(
            Advice(
                "note",
                "GPU memory rose in jumps",
                f"{memory.triggered} times the moving average grew by more than "
                f"{memory.parameters['increase']} points. Jumps at the start of an epoch are normal; "
                "steady growth means tensors are kept (append loss.item(), not loss).",
            )
        )
    balance = reports["LoadBalancing"]
    if balance.triggered:
        found.append(
            Advice(
                "act",
                "The GPUs are loaded unevenly",
                f"{balance.triggered} comparisons of two GPUs differ by more than "
                f"{balance.parameters['threshold']}. Use DistributedDataParallel with a "
                "DistributedSampler instead of one process feeding all GPUs.",
            )
        )
    return found


def _steps(reports: Mapping[str, RuleReport]) -> list[Advice]:
    outliers = reports["StepOutlier"]
    if not outliers.triggered:
        return []
    details: dict[str, Any] = outliers.details["step_details"]
    worst = max(details.values(), key=lambda one: one["step_stats"]["max"])
    stats = worst["step_stats"]
    phase = "evaluation" if worst["phase"] == EVAL else "training"
    return [
        Advice(
            "note",
            "Some steps take far longer than the rest",
            f"{worst['number_of_outliers']} {phase} steps lie more than {outliers.parameters['stddev']:g} "
            f"standard deviations above the mean: up to {seconds(stats['max'])} against a median of "
            f"{seconds(stats['p50'])}. If they come once an epoch, keep the loader's processes "
            "(persistent_workers); if at random, look for checkpoints or a busy disk.",
        )
    ]


def _initialization(reports: Mapping[str, RuleReport]) -> list[Advice]:
    report = reports["MaxInitializationTime"]
    first = report.details["step_num"].get("first")
    if not report.triggered:
        return []
    minutes = ((first / 1e6 if first else report.details["job_end"]) - report.details["job_start"]) / 60
    return [
        Advice(
            "act",
            "The job was slow to start",
            f"{minutes:.0f} minutes passed before the first step (limit "
            f"{report.parameters['threshold']}). Use FastFile input mode or fewer, larger files, and install "
            "little at the start.",
        )
    ]


def seconds(value: float) -> str:
    """A duration in a readable unit."""
    if value < 1:
        return f"{1000 * value:.0f} ms" if value >= 0.01 else f"{1000 * value:.1f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"
