"""Records which AWS operations a Python process calls: `service.Operation`, a line each, in RECORDED_CALLS.

Python imports this module by itself where this folder is on PYTHONPATH; the drills and the test of the whole
run put it there for Airflow's processes, to hold the calls against the policy in docs/iam.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from typing import Any

_seen: set[str] = set()


def _record(client_module: Any, file: str) -> None:
    original = client_module.BaseClient._make_api_call

    def call(self: Any, operation: str, parameters: Any) -> Any:
        line = f"{self.meta.service_model.service_name}.{operation}\n"
        if line not in _seen:
            _seen.add(line)
            with open(file, "a") as calls:  # noqa: PTH123 - pathlib would be imported in every process
                calls.write(line)
        return original(self, operation, parameters)

    client_module.BaseClient._make_api_call = call


class _Finder(importlib.abc.MetaPathFinder):
    """Wraps botocore's clients when they are imported."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "botocore.client":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        loader: Any = spec.loader if spec else None
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _record(module, os.environ["RECORDED_CALLS"])

            loader.exec_module = exec_module
        return spec


if "RECORDED_CALLS" in os.environ:
    sys.meta_path.insert(0, _Finder())
