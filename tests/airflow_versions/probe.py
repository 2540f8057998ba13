"""Imports the project in another environment, as Airflow would, and says what it found, as JSON.

    probe.py DAGS PLUGINS

Runs with the packages of that environment alone.
"""

import contextlib
import importlib
import importlib.util
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any


def dags(folder: Path) -> dict[str, int]:
    """Tasks by DAG, after a round through Airflow's serialisation."""
    from airflow.sdk import DAG

    serialisation: Any = importlib.import_module("airflow.serialization.serialized_objects")
    serialise = getattr(serialisation, "DagSerialization", serialisation.SerializedDAG).to_dict
    found = {}
    for path in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"dag_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for value in vars(module).values():
            if isinstance(value, DAG):
                found[value.dag_id] = len(serialise(value)["dag"]["tasks"])
    return found


def modules() -> int:
    """The number of modules of the plugin, all of which are imported: tasks import most of them late."""
    import retraining

    names = [found.name for found in pkgutil.walk_packages(retraining.__path__, "retraining.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def main() -> None:
    dags_folder, plugins = map(Path, sys.argv[1:])
    sys.path[:0] = [str(plugins), str(dags_folder)]
    with contextlib.redirect_stdout(sys.stderr):
        import airflow

        found: dict[str, Any] = {
            "airflow": airflow.__version__,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "dags": dags(dags_folder),
            "modules": modules(),
            "sdk": "sagemaker" in sys.modules,
        }
        from retraining.config.source import source_folder

        found["code"] = str(source_folder())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
