"""Builds sample and trace files in AWS's layout for the profiler's tests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

START = 1_700_000_040.0
"""A full minute."""


def golden_folder() -> Path:
    """Folder of AWS's published reports; skips the test where the dataset is not on this machine."""
    root = Path(os.environ.get("SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
    folder = root / "aws_golden"
    if not folder.is_dir():
        pytest.skip(f"no AWS reports at {folder}; set SHARED_DATA")
    return folder


def record(
    kind: str, name: str, dimension: str, value: float, moment: float, *, node: str = "algo-1"
) -> dict[str, Any]:
    """One sample."""
    return {
        "Type": kind,
        "Name": name,
        "Dimension": dimension,
        "Value": value,
        "NodeId": node,
        "Timestamp": moment,
    }


def tick(
    number: int,
    *,
    cpus: Iterable[float] = (),
    gpus: Iterable[float] = (),
    memory: float = 20.0,
    node: str = "algo-1",
) -> list[dict[str, Any]]:
    """All samples of the ``number``-th half second."""
    moment = START + number / 2 + 0.001
    found = [
        record("gpu", f"gpu{i}", "GPUUtilization", value, moment, node=node) for i, value in enumerate(gpus)
    ]
    found += [
        record("gpu", f"gpu{i}", "GPUMemoryUtilization", memory, moment, node=node)
        for i, _ in enumerate(gpus)
    ]
    found += [
        record("cpu", f"cpu{i}", "CPUUtilization", value, moment, node=node) for i, value in enumerate(cpus)
    ]
    return found


def write_lines(path: Path, records: Iterable[dict[str, Any]], tail: str = "") -> Path:
    """Write ``records`` as JSON lines, and ``tail`` behind them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in records) + tail)
    return path


def write_trace(
    folder: Path, events: Iterable[tuple[str, float, float, dict[str, Any]]], pid: int = 7
) -> Path:
    """Write (phase, start in s after START, duration in s, arguments) as one trace file."""
    phases: dict[str, int] = {}
    document: list[dict[str, Any]] = [
        {
            "name": "process_name",
            "ph": "M",
            "pid": 0,
            "args": {"start_time_since_epoch_in_micros": int(START * 1e6)},
        }
    ]
    for phase, start, duration, arguments in events:
        if phase not in phases:
            phases[phase] = len(phases) + 1
            document.append(
                {"name": "process_name", "ph": "M", "pid": phases[phase], "args": {"name": phase}}
            )
        document.append(
            {
                "name": phase,
                "ph": "X",
                "pid": phases[phase],
                "ts": start * 1e6,
                "dur": duration * 1e6,
                "args": arguments,
            }
        )
    path = (
        folder
        / "framework"
        / "pevents"
        / "2023111422"
        / f"{int(START * 1e6)}_{pid}-algo-1_pythontimeline.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path
