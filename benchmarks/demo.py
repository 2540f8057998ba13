"""The wall time of `make demo` with the sample data, after installation, and how it divides.

    .local/envs/airflow/bin/python -m benchmarks.demo

Runs the demonstration from nothing but the environments, on free ports, in a folder of its own, and stops it.
The exit status is 1 if the run failed or took longer than six minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 360.0  # on two cores


def run_demo(local: Path) -> tuple[bool, float]:
    """Whether the demonstration succeeded, and its wall seconds; its output goes to the terminal."""
    (local / "envs").symlink_to(Path(sys.prefix).parent)
    environment = {
        **os.environ,
        "LOCAL_DIR": str(local),
        "AIRFLOW_PORT": "0",
        "SAGEMAKER_PORT": "0",
        "KEEP": "0",
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "demo", "demo"], cwd=REPOSITORY, env=environment, check=False
    )
    return done.returncode == 0, time.monotonic() - started


def describe(record: dict[str, Any], wall: float) -> str:
    """The record's times as a table."""
    timing = record["timing"]
    lines = [f"\n{'make demo, with stopping at the end':40}{wall:8.1f} s"]
    lines += [f"  {name:38}{seconds:8.1f} s" for name, seconds in timing["steps"].items()]
    lines += [
        f"  {'of the run: ' + part:38}{timing[f'{part}_seconds']:8.1f} s" for part in ("job", "orchestration")
    ]
    lines += [f"    task {task['task_id']:33}{task['seconds'] or 0.0:8.1f} s" for task in record["tasks"]]
    lines.append(f"test accuracy {record['metrics'].get('test_accuracy', float('nan')):.4f}")
    return "\n".join(lines)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        succeeded, wall = run_demo(Path(folder))
        report = Path(folder) / "run.json"
        if report.exists():
            print(describe(json.loads(report.read_text()), wall))
    return 0 if succeeded and wall <= LIMIT_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
