"""Evaluates all eleven profiler rules on a job's samples."""

from collections.abc import Mapping
from pathlib import Path

from debugger.profiler import framework_rules, system_rules
from debugger.profiler.framework import read_framework
from debugger.profiler.parameters import resolve
from debugger.profiler.rule_report import Evidence, RuleReport
from debugger.profiler.samples import read_samples

EVALUATORS = {
    "BatchSize": system_rules.batch_size,
    "CPUBottleneck": system_rules.cpu_bottleneck,
    "Dataloader": framework_rules.dataloader,
    "GPUMemoryIncrease": system_rules.gpu_memory_increase,
    "IOBottleneck": system_rules.io_bottleneck,
    "LoadBalancing": system_rules.load_balancing,
    "LowGPUUtilization": system_rules.low_gpu_utilization,
    "MaxInitializationTime": framework_rules.max_initialization_time,
    "OverallFrameworkMetrics": framework_rules.overall_framework_metrics,
    "OverallSystemUsage": system_rules.overall_system_usage,
    "StepOutlier": framework_rules.step_outlier,
}
"""The function of each rule; the names are those of ``parameters.DEFAULTS``."""


def read_evidence(path: Path) -> Evidence:
    """Samples and traces below ``path``, a folder in AWS's layout or a file of sample lines."""
    return Evidence(read_samples(path), read_framework(path))


def evaluate(evidence: Evidence, overrides: Mapping[str, str] | None = None) -> dict[str, RuleReport]:
    """Every rule's report by name. ``overrides`` are ProfilerReport's ``<Rule>_<parameter>`` values."""
    parameters = resolve(overrides)
    return {rule: function(evidence, parameters[rule]) for rule, function in EVALUATORS.items()}
