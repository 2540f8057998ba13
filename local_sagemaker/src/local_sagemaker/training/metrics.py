"""Metrics of training jobs: what the regular expressions of `MetricDefinitions` find in the log."""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local_sagemaker.errors import ValidationError
from local_sagemaker.logs import LogEvent
from local_sagemaker.store import Metric

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Definition:
    name: str
    regex: re.Pattern[str]


def definitions(algorithm: dict[str, Any]) -> list[Definition]:
    """The `MetricDefinitions` of an AlgorithmSpecification. Raises ValidationError for an invalid one."""
    return [_definition(item) for item in algorithm.get("MetricDefinitions", [])]


def _definition(item: dict[str, str]) -> Definition:
    try:
        regex = re.compile(item["Regex"])
    except re.error as error:
        raise ValidationError(
            f"The Regex {item['Regex']!r} of metric {item['Name']!r} is invalid: {error}"
        ) from error
    if regex.groups == 0:
        raise ValidationError(
            f"The Regex {item['Regex']!r} of metric {item['Name']!r} has no group around the value; "
            "write for instance 'loss=([0-9.]+)'"
        )
    return Definition(item["Name"], regex)


def scrape(events: Iterable[LogEvent], wanted: Sequence[Definition]) -> Iterator[Metric]:
    """The values in log lines, in order, without non-finite ones, which CloudWatch refuses."""
    for event in events:
        for definition in wanted:
            if (match := definition.regex.search(event.message)) and match.group(1) is not None:
                value = _number(match.group(1))
                if value is None:
                    logger.info("metric %s: %r is not a finite number", definition.name, match.group(1))
                else:
                    yield Metric(definition.name, value, event.timestamp / 1000)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def final_metrics(wanted: Sequence[Definition], emitted: Sequence[Metric]) -> list[dict[str, Any]]:
    """`FinalMetricDataList`: each metric's last value, like AWS in 32-bit precision and whole seconds."""
    last = {name: (value, timestamp) for name, value, timestamp in emitted}
    return [
        {"MetricName": item.name, "Value": _single(last[item.name][0]), "Timestamp": int(last[item.name][1])}
        for item in wanted
        if item.name in last
    ]


def _single(value: float) -> float:
    """Rounded to 32-bit precision; a value out of its range is kept as it is."""
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return value
