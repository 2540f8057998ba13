"""The guides for other places to run, as far as this machine can tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from demo.environments import ROOT

# Of chart/values.yaml in https://github.com/apache/airflow, chart 1.22.0, 2026-11-26. A mapping that users
# fill themselves ends in a star.
CHART_KEYS = {
    "executor",
    "airflowVersion",
    "images.airflow.repository",
    "images.airflow.tag",
    "env",
    "workers.serviceAccount.annotations.*",
    "dagProcessor.serviceAccount.annotations.*",
}


def block(guide: str, language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / guide).read_text(), re.DOTALL)
    return str(found)


def keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if f"{prefix}*" in CHART_KEYS:
            yield f"{prefix}*"
        elif isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_the_values_for_kubernetes_are_the_charts() -> None:
    values = yaml.safe_load(block("kubernetes.md", "yaml"))
    assert set(keys(values)) == CHART_KEYS
    variables = {entry["name"]: entry["value"] for entry in values["env"]}
    assert json.loads(variables["AIRFLOW_CONN_AWS_DEFAULT"])["conn_type"] == "aws"
    assert f"apache-airflow=={values['airflowVersion']} " in (ROOT / "requirements.txt").read_text()


def test_the_image_for_kubernetes_copies_what_there_is() -> None:
    dockerfile = block("kubernetes.md", "dockerfile")
    sources = re.findall(r"^COPY (\S+)", dockerfile, re.MULTILINE)
    assert all((ROOT / source).exists() for source in sources)
    version = yaml.safe_load(block("kubernetes.md", "yaml"))["airflowVersion"]
    assert dockerfile.startswith(f"FROM apache/airflow:{version}-python3.12")


def test_managed_airflow_gets_the_versions_that_are_tested_elsewhere() -> None:
    def pins(file: Path) -> dict[str, str]:
        lines = re.findall(r"^([a-z0-9-]+)==(\S+)", file.read_text(), re.MULTILINE)
        return dict(lines)

    managed = pins(ROOT / "requirements-mwaa.txt")
    assert managed
    assert managed.items() <= pins(ROOT / "requirements.txt").items()
