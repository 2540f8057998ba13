"""Writes framework metrics from the training script: durations of steps, waits for data, and operators.

    timer = StepTimer(folder)                       # StepTimer(None) measures nothing and costs nothing
    for images, labels in timer.batches(loader, "TRAIN"):
        with timer.step("TRAIN"):
            ...forward, backward, update...
    timer.close()

The files are smdebug's traces: ``<folder>/framework/pevents/<YYYYMMDDHH>/<end in
µs>_<pid>-<node>_pythontimeline.json`` with phases ``Step:ModeKeys.TRAIN`` and ``.EVAL``,
``DataLoaderIterInitialize``, ``DataLoaderIter``, ``cpu_functions`` and ``gpu_functions-dev:<n>``. smdebug's
readers and AWS's notebooks read them.
"""

import datetime
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from debugger.layout import END_MARKER, node_name
from debugger.storage import write_atomically

Batch = TypeVar("Batch")

_EPOCH = time.time() - time.perf_counter()

FLUSH_S = 30.0
"""Seconds after which a trace file is closed, so that a killed job loses little."""


class StepTimer:
    """Times steps and waits for data.

    ``profile_steps`` training steps from step ``profile_from`` on run under PyTorch's profiler, which records
    operators and slows these steps by about ten per cent.
    """

    def __init__(self, folder: Path | None, *, profile_from: int = 5, profile_steps: int = 0) -> None:
        self._writer = _TraceWriter(folder) if folder is not None else None
        self._counts: Counter[str] = Counter()
        self._profile = range(profile_from, profile_from + profile_steps)
        self._profiler: Any = None
        self._profile_start = 0.0

    def batches(self, loader: Iterable[Batch], mode: str = "TRAIN") -> Iterator[Batch]:
        """Iterate over a loader and time each wait for a batch, under the number of the step that uses it."""
        if self._writer is None:
            yield from loader
            return
        started = _now()
        iterator = iter(loader)
        self._writer.add("DataLoaderIterInitialize", started, _loader_settings(loader, mode))
        while True:
            started = _now()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._writer.add("DataLoaderIter", started, {"step_num": str(self._counts[mode]), "mode": mode})
            yield batch

    @contextmanager
    def step(self, mode: str = "TRAIN") -> Iterator[None]:
        """Time one step. Steps are numbered from 0 in each mode, as smdebug does."""
        if self._writer is None:
            yield
            return
        number = self._counts[mode]
        if mode == "TRAIN" and self._profile and number == self._profile.start:
            self._start_profiler()
        started = _now()
        try:
            yield
        finally:
            self._writer.add(f"Step:ModeKeys.{mode}", started, {"step_num": str(number)})
            self._counts[mode] += 1
            if self._profiler is not None and self._counts["TRAIN"] >= self._profile.stop:
                self._stop_profiler()

    def close(self) -> None:
        """Write the remaining events and mark the end of the traces."""
        if self._writer is None:
            return
        if self._profiler is not None:
            self._stop_profiler()
        self._writer.close()
        self._writer = None

    def _start_profiler(self) -> None:
        import torch  # noqa: PLC0415 - only scripts that train with PyTorch profile operators

        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.start()
        self._profile_start = _now()

    def _stop_profiler(self) -> None:
        self._profiler.stop()
        averages = self._profiler.key_averages()
        self._profiler = None
        if self._writer is None:
            return
        for one in averages:
            for phase, total in (
                ("cpu_functions", one.cpu_time_total),
                ("gpu_functions-dev:0", one.device_time_total),
            ):
                if total > 0:
                    arguments = {"calls": int(one.count), "steps": len(self._profile)}
                    self._writer.add(
                        phase, self._profile_start, arguments, name=one.key, duration=total / 1e6
                    )


def _now() -> float:
    """Monotonic epoch seconds: adjusting the system clock neither reorders nor shortens steps."""
    return _EPOCH + time.perf_counter()


def _loader_settings(loader: Any, mode: str) -> dict[str, Any]:
    """A loader's settings for the report; attributes that it does not have are left out."""
    found = {"mode": mode, "cores": os.cpu_count() or 0}
    for name in ("num_workers", "pin_memory", "batch_size"):
        if hasattr(loader, name):
            found[name] = getattr(loader, name)
    return found


class _TraceWriter:
    """Collects events and writes a trace file every FLUSH_S seconds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "framework"
        self._events: list[tuple[str, str, float, float, dict[str, Any]]] = []
        self._flushed = _now()

    def add(
        self,
        phase: str,
        started: float,
        arguments: dict[str, Any],
        *,
        name: str | None = None,
        duration: float | None = None,
    ) -> None:
        """One event from ``started`` (epoch seconds) until now, or of ``duration`` seconds."""
        now = _now()
        self._events.append(
            (phase, name or phase, started, now - started if duration is None else duration, arguments)
        )
        if now - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write the collected events as one file."""
        self._flushed = _now()
        if not self._events:
            return
        origin = round(min(started for _, _, started, _, _ in self._events) * 1e6)
        end = round(max(started + duration for _, _, started, duration, _ in self._events) * 1e6)
        phases: dict[str, int] = {}
        document: list[dict[str, Any]] = [_meta(0, {"start_time_since_epoch_in_micros": origin})]
        for phase, name, started, duration, arguments in self._events:
            if phase not in phases:
                phases[phase] = len(phases)
                document.append(_meta(phases[phase], {"name": phase}))
            document.append(
                {
                    "name": name,
                    "ph": "X",
                    "pid": phases[phase],
                    "ts": round(started * 1e6) - origin,
                    "dur": round(duration * 1e6),
                    "args": arguments,
                }
            )
        self._events = []
        hour = datetime.datetime.fromtimestamp(end / 1e6, tz=datetime.UTC).strftime("%Y%m%d%H")
        path = self._folder / "pevents" / hour / f"{end}_{os.getpid()}-{node_name()}_pythontimeline.json"
        write_atomically(path, json.dumps(document))

    def close(self) -> None:
        """Write the remaining events and the end marker."""
        self.flush()
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / END_MARKER).touch()


def _meta(pid: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"name": "process_name", "ph": "M", "pid": pid, "args": arguments}
