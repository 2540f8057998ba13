"""Metrics of InvokeEndpoint, as CloudWatch has them in the namespace AWS/SageMaker."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from statistics import fmean
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends

from local_sagemaker.context import ACCOUNT
from local_sagemaker.hosting.invocation import Invocation

NAMESPACE = "AWS/SageMaker"
KEPT = 100_000  # invocations per variant: over half an hour at 50 a second


@dataclass(frozen=True)
class Sample:
    """One invocation. `time` is epoch seconds, latencies are microseconds, `status` 0 means no response."""

    time: float
    status: int
    model_latency: float
    overhead_latency: float


METRICS: dict[str, tuple[str, Callable[[Sample], float]]] = {
    "Invocations": ("None", lambda _: 1.0),
    "Invocation4XXErrors": ("None", lambda sample: float(400 <= sample.status < 500)),
    "Invocation5XXErrors": ("None", lambda sample: float(sample.status == 0 or sample.status >= 500)),
    "InvocationModelErrors": ("None", lambda sample: float(not 200 <= sample.status < 300)),
    "ModelLatency": ("Microseconds", lambda sample: sample.model_latency),
    "OverheadLatency": ("Microseconds", lambda sample: sample.overhead_latency),
}


_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Sum": sum,
    "Average": fmean,
    "Minimum": min,
    "Maximum": max,
    "SampleCount": len,
}
_PERCENTILE = re.compile(r"p\d+(\.\d+)?")


class Recorder:
    """Recent invocations by endpoint and variant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[tuple[str, str], deque[Sample]] = defaultdict(lambda: deque(maxlen=KEPT))

    def observe(self, invocation: Invocation) -> None:
        sample = Sample(
            time.time(),
            invocation.status,
            invocation.model_seconds * 1e6,
            invocation.overhead_seconds * 1e6,
        )
        with self._lock:
            self._samples[invocation.endpoint, invocation.variant].append(sample)

    def values(self, endpoint: str, variant: str, metric: str, start: float, end: float) -> list[float]:
        """The metric's values in `start <= time < end`."""
        _, value = METRICS[metric]
        with self._lock:
            newest_first = reversed(self._samples.get((endpoint, variant), deque()))
            samples = list(takewhile(lambda sample: sample.time >= start, newest_first))
        return [value(sample) for sample in samples if sample.time < end]

    def variants(self) -> list[tuple[str, str]]:
        with self._lock:
            return list(self._samples)


class Publisher:
    """Puts the metrics since the last call into CloudWatch, as statistics."""

    def __init__(self, recorder: Recorder, region: str) -> None:
        self._recorder = recorder
        self._region = region
        self._published = time.time()

    def publish(self) -> None:
        start, end = self._published, time.time()
        data = [
            datum
            for endpoint, variant in self._recorder.variants()
            for metric in METRICS
            if (datum := self._datum(endpoint, variant, metric, start, end)) is not None
        ]
        if data:
            cloudwatch_backends[ACCOUNT][self._region].put_metric_data(NAMESPACE, data)
        self._published = end

    def _datum(
        self, endpoint: str, variant: str, metric: str, start: float, end: float
    ) -> dict[str, Any] | None:
        values = self._recorder.values(endpoint, variant, metric, start, end)
        if not values:
            return None
        return {
            "MetricName": metric,
            "Unit": METRICS[metric][0],
            "Dimensions": [
                {"Name": "EndpointName", "Value": endpoint},
                {"Name": "VariantName", "Value": variant},
            ],
            "Timestamp": datetime.fromtimestamp(end, UTC).replace(tzinfo=None),
            "StatisticValues": {
                "Sum": sum(values),
                "Minimum": min(values),
                "Maximum": max(values),
                "SampleCount": len(values),
            },
        }


def is_statistic(name: str) -> bool:
    """Whether `statistic` supports the name: Sum, Average and so on, or a percentile such as p99."""
    return name in _STATISTICS or _PERCENTILE.fullmatch(name) is not None


def statistic(name: str, values: Sequence[float]) -> float:
    """A CloudWatch statistic of at least one value; percentiles are by nearest rank."""
    if name in _STATISTICS:
        return float(_STATISTICS[name](values))
    rank = math.ceil(float(name[1:]) / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]
