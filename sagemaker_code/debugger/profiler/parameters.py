"""Names and parameters of the profiler rules: AWS's defaults, and ProfilerReport's overrides."""

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "BatchSize": {
        "cpu_threshold_p95": 70,
        "gpu_threshold_p95": 70,
        "gpu_memory_threshold_p95": 70,
        "patience": 1000,
        "window": 500,
    },
    "CPUBottleneck": {"threshold": 50, "cpu_threshold": 90, "gpu_threshold": 10, "patience": 1000},
    "Dataloader": {"min_threshold": 70, "max_threshold": 200},
    "GPUMemoryIncrease": {"increase": 5, "patience": 1000, "window": 10},
    "IOBottleneck": {"threshold": 50, "io_threshold": 50, "gpu_threshold": 10, "patience": 1000},
    "LoadBalancing": {"threshold": 0.2, "patience": 1000},
    "LowGPUUtilization": {"threshold_p95": 70, "threshold_p5": 10, "window": 500, "patience": 1000},
    "MaxInitializationTime": {"threshold": 20},
    "OverallFrameworkMetrics": {},
    "OverallSystemUsage": {},
    "StepOutlier": {"threshold": 3, "mode": None, "n_outliers": 10, "stddev": 3},
}
"""In the order of ``RuleParameters`` in the published report files. LoadBalancing's 0.2 and StepOutlier's
``threshold`` (a copy of ``stddev``) are those files' values; the client library has 0.5 and no
``threshold``."""

ACCEPTED_AND_UNUSED = {"scan_interval_us"}
"""The client library has this parameter, but the service always evaluates once a minute."""


class ProfilerParameterError(ValueError):
    """A ``<Rule>_<parameter>`` override is unknown or not a number; the message names it."""


def resolve(overrides: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Parameters of every rule, with ``<Rule>_<parameter>`` overrides (rule names in any case) applied.

    Raises ProfilerParameterError naming the override that is wrong.
    """
    parameters = {rule: dict(values) for rule, values in DEFAULTS.items()}
    by_name = {rule.lower(): rule for rule in DEFAULTS}
    for key, value in (overrides or {}).items():
        if key == "rule_to_invoke":
            continue
        rule_name, _, name = key.partition("_")
        rule = by_name.get(rule_name.lower())
        if rule is None:
            raise ProfilerParameterError(
                f"{key}: there is no profiler rule {rule_name}; rules are {', '.join(DEFAULTS)}"
            )
        if name in ACCEPTED_AND_UNUSED:
            continue
        if name not in parameters[rule]:
            known = ", ".join(f"{rule}_{one}" for one in parameters[rule]) or "none"
            raise ProfilerParameterError(f"{key}: {rule} has no parameter {name}; it has {known}")
        parameters[rule][name] = _convert(key, value, parameters[rule][name])
        if rule == "StepOutlier" and name in ("stddev", "threshold"):
            parameters[rule]["stddev"] = parameters[rule]["threshold"] = parameters[rule][name]
    return parameters


def _convert(key: str, value: str, default: Any) -> Any:
    if default is None:
        return None if value in ("", "None") else value
    try:
        number = float(value)
    except ValueError as error:
        raise ProfilerParameterError(f"{key}: {value!r} is not a number; the default is {default}") from error
    return int(number) if isinstance(default, int) and number.is_integer() else number


def as_text(parameters: Mapping[str, Any]) -> str:
    """The ``RuleParameters`` member of a report file: one ``name:value`` per line."""
    return "\n".join(f"{name}:{value}" for name, value in parameters.items())
