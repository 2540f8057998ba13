"""Samples system metrics (CPU by core, memory, I/O, network, GPU) into files in AWS's format.

``<output>/system/incremental/<YYYYMMDDHH>/<epoch of the minute>.<node>.json`` grows by a block of lines per
tick. As on AWS, ``<output>/system/training_job_end.ts`` marks the end of sampling.
"""

import argparse
import ctypes
import datetime
import json
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from debugger.layout import END_MARKER, node_name

INTERVAL_S = 0.5


class _Utilization(ctypes.Structure):
    """NVML's ``nvmlUtilization_t``: per cent of the last sampling period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class NvidiaGpus:
    """Utilisation of all NVIDIA GPUs through the driver's own library; none without the library."""

    def __init__(self) -> None:
        self._handles: list[ctypes.c_void_p] = []
        try:
            self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        number = ctypes.c_uint()
        if self._nvml.nvmlInit_v2() or self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(number)):
            return
        for index in range(number.value):
            handle = ctypes.c_void_p()
            if not self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
                self._handles.append(handle)

    def utilization(self) -> list[tuple[int, int, int]]:
        """Index, GPU per cent and memory per cent of each GPU that can be read."""
        found = []
        for index, handle in enumerate(self._handles):
            used = _Utilization()
            if not self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(used)):
                found.append((index, used.gpu, used.memory))
        return found


@dataclass(frozen=True)
class _Counters:
    """Counters whose differences are the metrics, and when they were read (monotonic seconds)."""

    moment: float
    cpus: list[Any]
    operations: int
    read: int
    written: int
    received: int
    sent: int


@dataclass
class Sampler:
    """Writes one block of samples per tick to ``output``; ``interval`` is in seconds."""

    output: Path
    node: str = field(default_factory=node_name)
    interval: float = INTERVAL_S
    parent: int | None = None

    def __post_init__(self) -> None:
        self._gpus = NvidiaGpus()
        self._before: _Counters | None = None
        self._minute = -1
        self._file: Any = None

    def run(self, stop: threading.Event) -> None:
        """Sample at multiples of the interval until ``stop`` is set or the ``parent`` process has ended."""
        try:
            while not stop.wait(self.interval - time.time() % self.interval):
                if self.parent is not None and os.getppid() != self.parent:
                    break
                self.tick()
        finally:
            self.close()

    def tick(self) -> None:
        """Take and write one block of samples."""
        now = time.time()
        lines = [json.dumps(record) for record in self.sample(now)]
        minute = int(now // 60) * 60
        if minute != self._minute:
            self._open(minute)
        self._file.write("\n".join(lines) + "\n")
        self._file.flush()

    def sample(self, now: float) -> list[dict[str, Any]]:
        """All samples at ``now`` (epoch seconds). The first call has no rates, which are differences."""
        counters = _read_counters()
        before, self._before = self._before, counters
        values: list[tuple[str, str, str, float]] = [
            ("memory", "MemoryUsedPercent", "", psutil.virtual_memory().percent)
        ]
        for index, gpu, memory in self._gpus.utilization():
            values.append(("gpu", f"gpu{index}", "GPUUtilization", float(gpu)))
            values.append(("gpu", f"gpu{index}", "GPUMemoryUtilization", float(memory)))
        if before is not None:
            values += _rates(before, counters)
        names = ("Type", "Name", "Dimension", "Value")
        return [
            dict(zip(names, one, strict=True)) | {"NodeId": self.node, "Timestamp": now} for one in values
        ]

    def close(self) -> None:
        """Close the file and mark the end of sampling."""
        if self._file is not None:
            self._file.close()
            self._file = None
            (self.output / "system" / END_MARKER).touch()

    def _open(self, minute: int) -> None:
        if self._file is not None:
            self._file.close()
        hour = datetime.datetime.fromtimestamp(minute, tz=datetime.UTC).strftime("%Y%m%d%H")
        path = self.output / "system" / "incremental" / hour / f"{minute}.{self.node}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._minute = minute


def _read_counters() -> _Counters:
    disk = psutil.disk_io_counters()
    cards = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
    return _Counters(
        time.monotonic(),
        psutil.cpu_times(percpu=True),
        disk.read_count + disk.write_count if disk else 0,
        disk.read_bytes if disk else 0,
        disk.write_bytes if disk else 0,
        sum(card.bytes_recv for card in cards),
        sum(card.bytes_sent for card in cards),
    )


def _rates(before: _Counters, after: _Counters) -> list[tuple[str, str, str, float]]:
    seconds = max(after.moment - before.moment, 1e-6)

    def rate(name: str) -> float:
        return round(float(max(0, getattr(after, name) - getattr(before, name))) / seconds, 2)

    found: list[tuple[str, str, str, float]] = []
    for index, (old, new) in enumerate(zip(before.cpus, after.cpus, strict=False)):
        used, waited = _core_use(old, new)
        found.append(("cpu", f"cpu{index}", "CPUUtilization", used))
        found.append(("cpu", f"cpu{index}", "I/OWaitPercentage", waited))
    found.append(("i/o", "IOPS", "", rate("operations")))
    found.append(("i/o", "ReadThroughputInBytesPerSecond", "", rate("read")))
    found.append(("i/o", "WriteThroughputInBytesPerSecond", "", rate("written")))
    found.append(("network", "ReceiveBytesPerSecond", "Algorithm", rate("received")))
    found.append(("network", "TransmitBytesPerSecond", "Algorithm", rate("sent")))
    return found


def _core_use(old: Any, new: Any) -> tuple[float, float]:
    """Per cent of the time between two readings that a core was busy, and that it waited for I/O."""
    whole = sum(new) - sum(old) - (getattr(new, "guest", 0.0) - getattr(old, "guest", 0.0))
    if whole <= 0:
        return 0.0, 0.0
    waited = getattr(new, "iowait", 0.0) - getattr(old, "iowait", 0.0)
    idle = new.idle - old.idle + waited
    return round(100 * min(1.0, max(0.0, 1 - idle / whole)), 2), round(
        100 * min(1.0, max(0.0, waited / whole)), 2
    )


def main(arguments: list[str] | None = None) -> int:
    """Sample until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m debugger sample", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder, AWS's profiler-output")
    parser.add_argument("--node", default=node_name(), help="name of this host in the samples")
    parser.add_argument("--interval-ms", type=int, default=int(1000 * INTERVAL_S), help="100 to 60000")
    parser.add_argument("--parent", type=int, help="end when this parent process has ended")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Sampler(options.output, options.node, options.interval_ms / 1000, options.parent).run(stop)
    return 0
