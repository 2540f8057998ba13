"""How long the DAG file takes to import beyond Airflow itself, and whether it drags in what it must not.

    python benchmarks/dag_import.py [--runs 5]

Every run is a fresh interpreter. Airflow's own part is what a DAG file cannot avoid: `airflow.sdk` and the
DagBag that loads the file. The exit status is 1 if the median is above 0.5 s or a heavy library was imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 0.5
HEAVY = ("boto3", "botocore", "sagemaker", "numpy", "pandas", "matplotlib", "torch", "PIL", "imagehash")

_MEASURE = """
import json, sys, time
start = time.perf_counter()
import airflow.sdk
from airflow.dag_processing.dagbag import DagBag
ready = time.perf_counter()
before = set(sys.modules)
bag = DagBag(sys.argv[1])
done = time.perf_counter()
if bag.import_errors:
    raise SystemExit(str(bag.import_errors))
new = {name.partition(".")[0] for name in set(sys.modules) - before}
times = {"airflow": ready - start, "dags": done - ready}
print(json.dumps({**times, "modules": sorted(new), "ids": sorted(bag.dags)}))
"""


@dataclass(frozen=True)
class Import:
    """Seconds that Airflow's own import took, and the DAG folder's; its DAGs, and the packages it brought."""

    airflow: float
    dags: float
    modules: list[str]
    ids: list[str]


def measure(home: Path) -> Import:
    """One import in a fresh interpreter."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    command = [sys.executable, "-c", _MEASURE, str(REPOSITORY / "dags")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Import(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the import of the DAG file.")
    parser.add_argument("--runs", type=int, default=5, help="fresh interpreters (default 5)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        measure(Path(home))  # the first run writes byte code and Airflow's configuration
        results = [measure(Path(home)) for _ in range(runs)]
    airflow = statistics.median(result.airflow for result in results)
    dags = statistics.median(result.dags for result in results)
    heavy = sorted({name for result in results for name in result.modules} & set(HEAVY))
    sys.stdout.write(
        f"{', '.join(results[0].ids)}, median of {runs} fresh interpreters:\n"
        f"  Airflow's own import  {airflow:6.3f} s\n"
        f"  with the DAG file     {airflow + dags:6.3f} s\n"
        f"  the DAG file's share  {dags:6.3f} s (limit {LIMIT_SECONDS} s)\n"
        f"  heavy libraries       {', '.join(heavy) or 'none'}\n"
    )
    return 1 if dags > LIMIT_SECONDS or heavy else 0


if __name__ == "__main__":
    raise SystemExit(main())
