"""What the DAG files cost: a parse in the DAG processor, and a task in a worker.

    python benchmarks/dag_import.py [--runs 10]

Airflow's DAG processor imports the `airflow.*` modules that a file names, and forks a process for each parse,
so a parse is measured in a forked child of a process that has done the same. A task's process parses the file
on its own; a task that does nothing is measured from start to end, as Airflow itself records it, in an
Airflow of the benchmark's own. The exit status is 1 if a median is above its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from demo import services  # noqa: E402
from demo.airflow_api import AirflowApi  # noqa: E402
from demo.settings import read_settings  # noqa: E402

PARSE_LIMIT_SECONDS = 0.15
TASK_LIMIT_SECONDS = 0.4
RUN_SECONDS = 60.0

_PARSES = """
import json, os, sys, time
from pathlib import Path
import airflow.sdk
from airflow.dag_processing import processor  # what the processor has loaded before it forks
from airflow.dag_processing.dagbag import DagBag
path, runs = Path(sys.argv[1]), int(sys.argv[2])
processor._pre_import_airflow_modules(str(path), None)
seconds = []
for _ in range(runs + 1):
    reading, writing = os.pipe()
    if os.fork() == 0:
        start = time.perf_counter()
        bag = DagBag(str(path))
        took = time.perf_counter() - start
        os.write(writing, json.dumps(str(bag.import_errors) if bag.import_errors else took).encode())
        os._exit(0)
    os.wait()
    seconds.append(json.loads(os.read(reading, 65536)))
print(json.dumps(seconds[1:]))  # the first one wrote byte code
"""

_NOTHING = """

@dag(dag_id="nothing", schedule=None)
def _nothing() -> None:
    from airflow.sdk import task

    @task
    def nothing() -> None:
        return None

    nothing()


_nothing()
"""


def parses(runs: int, home: Path) -> list[float]:
    """Seconds of parses of `dags/retraining.py`, each in a forked child."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    command = [sys.executable, "-c", _PARSES, str(REPOSITORY / "dags" / "retraining.py"), str(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def tasks(runs: int, local: Path) -> list[float]:
    """Seconds from start to end of a task that does nothing, in a copy of the real DAG file."""
    dags = local / "dags"
    shutil.copytree(REPOSITORY / "dags" / "pipelines", dags / "pipelines")
    (local / "envs").symlink_to(Path(sys.executable).parents[2])
    (dags / "retraining.py").write_text((REPOSITORY / "dags" / "retraining.py").read_text() + _NOTHING)
    settings = read_settings({"LOCAL_DIR": str(local), "AIRFLOW_PORT": "0", "SAGEMAKER_PORT": "0"})
    try:
        services.start(settings, services.AIRFLOW, {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)})
        airflow = services.wait_until_ready(settings, "airflow")
        with AirflowApi(airflow.url, "admin", services.password(settings)) as api:
            api.wait_for_dag("nothing")
            api.unpause("nothing")
            return [_one_task(api) for _ in range(runs + 1)][1:]
    finally:
        services.stop(settings)


def _one_task(api: AirflowApi) -> float:
    run_id = api.trigger("nothing", {})
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        [task] = api.tasks("nothing", run_id) or [None]
        if task and task.state == "success" and task.seconds is not None:
            return task.seconds
        time.sleep(0.2)
    raise TimeoutError(f"the run {run_id} did not end within {RUN_SECONDS} s")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure a parse of the DAG file, and a task that does nothing."
    )
    parser.add_argument("--runs", type=int, default=10, help="parses and tasks (default 10)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="dag-import-") as folder:
        home = Path(folder)
        measured = {
            "a parse in the DAG processor": (parses(runs, home / "parses"), PARSE_LIMIT_SECONDS),
            "a task that does nothing": (tasks(runs, home / "tasks"), TASK_LIMIT_SECONDS),
        }
    for what, (seconds, limit) in measured.items():
        sys.stdout.write(
            f"{what:30}  median {statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f} "
            f"in {runs} runs (limit {limit} s)\n"
        )
    return int(any(statistics.median(seconds) > limit for seconds, limit in measured.values()))


if __name__ == "__main__":
    raise SystemExit(main())
