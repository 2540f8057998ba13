"""A job's system samples as series, from AWS's files per minute or from one file of the same lines."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MINUTE_FILE = re.compile(r"^\d+\.algo-\d+\.json$")
TOTAL = "total"
SAME_INSTANT_S = 0.02
"""Samples that are closer belong to the same tick of the sampler; ticks are 0.1 to 60 s apart."""
GAP_S = 5.0


@dataclass(frozen=True)
class Series:
    """One metric over time: ascending ``times`` in epoch seconds, and ``values`` of the same shape."""

    times: Array
    values: Array

    def __len__(self) -> int:
        return len(self.times)

    def until(self, end: float) -> Array:
        """Values sampled before ``end``."""
        return self.values[: int(np.searchsorted(self.times, end, side="left"))]


EMPTY = Series(np.empty(0), np.empty(0))


@dataclass
class ReadNotes:
    """Defects found while reading, for the report."""

    files: int = 0
    lines: int = 0
    unreadable: int = 0
    cut_off: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """A sentence for each kind of defect."""
        found = [
            (self.unreadable, "{} lines could not be read and were skipped"),
            (self.cut_off, "{} files end in a truncated line, which was skipped"),
            (self.out_of_order, "{} samples were out of order and were sorted"),
            (self.duplicates, "{} samples were duplicates and were counted once"),
            (len(self.gaps), "{} gaps of more than " + f"{GAP_S:g} s without samples"),
        ]
        return [text.format(count) for count, text in found if count]


Key = tuple[str, str, str, str]
"""node, type, name, dimension"""


class SystemMetrics:
    """All samples of a job by node, in the views that rules need."""

    def __init__(self, series: dict[Key, Series], notes: ReadNotes | None = None) -> None:
        self.series = series
        self.notes = notes or ReadNotes()

    @property
    def nodes(self) -> list[str]:
        """Node names, ``algo-2`` before ``algo-10``."""
        return sorted({key[0] for key in self.series}, key=natural_order)

    def empty(self) -> bool:
        """Whether there is no sample at all."""
        return not self.series

    def span(self) -> tuple[float, float]:
        """First and last time of any sample, in epoch seconds; zeros without samples."""
        if not self.series:
            return 0.0, 0.0
        return (
            min(float(one.times[0]) for one in self.series.values()),
            max(float(one.times[-1]) for one in self.series.values()),
        )

    def minutes(self) -> list[float]:
        """Starts (epoch seconds) of the calendar minutes with samples; rules are evaluated in each."""
        starts: set[float] = set()
        for one in self.series.values():
            starts.update(np.unique(np.floor(one.times / 60.0) * 60.0).tolist())
        return sorted(starts)

    def node_times(self, node: str) -> Array:
        """All distinct sample times of a node, of any metric."""
        found = [one.times for key, one in self.series.items() if key[0] == node]
        return np.unique(np.concatenate(found)) if found else np.empty(0)

    def each(self, node: str, kind: str, dimension: str | None = None) -> dict[str, Series]:
        """A node's series by name. Files reduced to one mean per instant name it ``total``; it is used only
        without the individual series.
        """
        found = {
            key[2]: one
            for key, one in self.series.items()
            if key[0] == node and key[1] == kind and (dimension is None or key[3] == dimension)
        }
        if len(found) > 1:
            found.pop(TOTAL, None)
        return dict(sorted(found.items(), key=lambda pair: natural_order(pair[0])))

    def mean(self, node: str, kind: str, dimension: str | None = None) -> Series:
        """Mean over the names (cores, GPUs) at each instant."""
        return combine(list(self.each(node, kind, dimension).values()))

    def cores(self, node: str) -> int:
        """Number of CPU cores; 0 if only their mean is known."""
        return len([name for name in self.each(node, "cpu", "CPUUtilization") if name != TOTAL])

    def gpus(self, node: str) -> list[tuple[str, Series, Series]]:
        """Name, utilisation and memory utilisation of every GPU; a lone mean is named ``gpu0``."""
        memory = self.each(node, "gpu", "GPUMemoryUtilization")
        return [
            ("gpu0" if name == TOTAL else name, utilization, memory.get(name, EMPTY))
            for name, utilization in self.each(node, "gpu", "GPUUtilization").items()
        ]

    def network(self, node: str) -> Series:
        """Bytes per second received and sent by the node at each instant.

        Our interpretation: if the traffic of the training container (``Algorithm``) is separate, only that
        counts.
        """
        series = {key: one for key, one in self.series.items() if key[:2] == (node, "network")}
        algorithm = [one for key, one in series.items() if "Algorithm" in key[2:]]
        return combine(algorithm or list(series.values()), total=True)


def natural_order(name: str) -> tuple[str | int, ...]:
    """Sort key that orders numbers in a name by value."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name))


def combine(series: list[Series], *, total: bool = False) -> Series:
    """Mean (or total) of several series at each instant, over those with a sample there."""
    series = [one for one in series if len(one)]
    if not series:
        return EMPTY
    if len(series) == 1:
        return series[0]
    times = np.concatenate([one.times for one in series])
    values = np.concatenate([one.values for one in series])
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    ticks = tick_numbers(times)
    sums = np.bincount(ticks, weights=values)
    counts = np.bincount(ticks)
    firsts = times[np.flatnonzero(np.diff(ticks, prepend=-1))]
    values = sums if total else sums / counts
    return Series(firsts, np.asarray(values, dtype=np.float64))


def tick_numbers(times: Array) -> npt.NDArray[np.int64]:
    """The number of the sampler's tick for each of the ascending ``times``."""
    if not len(times):
        return np.empty(0, dtype=np.int64)
    return np.asarray(np.cumsum(np.diff(times, prepend=times[0]) > SAME_INSTANT_S), dtype=np.int64)


def sample_files(path: Path) -> list[Path]:
    """The files with samples: ``path`` itself, the files per minute below it, or its ``*.jsonl`` files."""
    if path.is_file():
        return [path]
    minute_files = [one for one in path.rglob("*.json") if MINUTE_FILE.match(one.name)]
    found = minute_files or [one for one in path.rglob("*.jsonl") if one.is_file()]
    return sorted(found, key=lambda one: natural_order(one.as_posix()))


def read_samples(path: Path) -> SystemMetrics:
    """Read every sample below ``path``. Lines that cannot be read are counted and skipped."""
    notes = ReadNotes()
    collected: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    for file in sample_files(path):
        notes.files += 1
        for key, moment, value in _read_lines(file, notes):
            collected[key].append((moment, value))
    series = {key: _as_series(pairs, notes) for key, pairs in collected.items()}
    notes.gaps = _gaps(series.values())
    return SystemMetrics(series, notes)


def _read_lines(file: Path, notes: ReadNotes) -> Iterator[tuple[Key, float, float]]:
    content = file.read_text(encoding="utf-8", errors="replace")
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        notes.lines += 1
        parsed = _parse(line)
        if parsed is not None:
            yield parsed
        elif number == len(lines) and not content.endswith("\n"):
            notes.cut_off += 1
        else:
            notes.unreadable += 1


def _parse(line: str) -> tuple[Key, float, float] | None:
    try:
        record = json.loads(line)
        key = (
            str(record["NodeId"]),
            str(record["Type"]),
            str(record.get("Name") or ""),
            str(record.get("Dimension") or ""),
        )
        moment, value = float(record["Timestamp"]), float(record["Value"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (key, moment, value) if math.isfinite(moment) and math.isfinite(value) and moment > 0 else None


def _as_series(pairs: list[tuple[float, float]], notes: ReadNotes) -> Series:
    array = np.array(pairs, dtype=np.float64)
    steps = np.diff(array[:, 0])
    if (steps < 0).any():
        notes.out_of_order += int((steps < 0).sum())
        array = array[np.argsort(array[:, 0], kind="stable")]
    keep = np.append(np.diff(array[:, 0]) > 0, True)
    notes.duplicates += int((~keep).sum())
    return Series(array[keep, 0], array[keep, 1])


def _gaps(series: Iterable[Series]) -> list[tuple[float, float]]:
    everything = [one.times for one in series]
    if not everything:
        return []
    times = np.unique(np.concatenate(everything))
    after = np.flatnonzero(np.diff(times) > GAP_S)
    return [(float(times[index]), float(times[index + 1])) for index in after]
