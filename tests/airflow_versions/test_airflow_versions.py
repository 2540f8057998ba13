"""The project under other versions of Python and Airflow, really installed (`make test-airflow-versions`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from retraining.airflow_version import OLDEST_AIRFLOW

from demo import mwaa
from demo.environments import ENVIRONMENTS, ROOT

PROBE = Path(__file__).with_name("probe.py")
ENVIRONMENTS_FOLDER = Path(sys.prefix).parent
DAGS = {"dog_breed_retraining": 14, "dog_breed_rollback": 3}
MODULES = len(
    [path for path in (ROOT / "plugins" / "retraining").rglob("*.py") if path.stem != "__init__"]
) + len(list((ROOT / "plugins" / "retraining").glob("*/__init__.py")))


def python_of(name: str) -> Path:
    python = ENVIRONMENTS_FOLDER / name / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{name}: Python {ENVIRONMENTS[name].python} is not on this machine")
    return python


def probe(name: str, dags: Path, plugins: Path, home: Path) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
    return subprocess.run(
        [python_of(name), PROBE, dags, plugins],
        env={**variables, "AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def found(name: str, dags: Path, plugins: Path, home: Path) -> dict[str, Any]:
    result = probe(name, dags, plugins, home)
    assert result.returncode == 0, result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """A folder like MWAA's: dags/, and plugins/ with what was in plugins.zip."""
    mwaa.build(tmp_path)
    with zipfile.ZipFile(tmp_path / "plugins.zip") as archive:
        archive.extractall(tmp_path / "plugins")
    return tmp_path


@pytest.mark.parametrize("python", ["3.12", "3.13"])
def test_requirements_serve_every_python(python: str, tmp_path: Path) -> None:
    result = found(f"airflow-{python}", ROOT / "dags", ROOT / "plugins", tmp_path)
    assert result == {
        "airflow": version("apache-airflow"),
        "python": python,
        "dags": DAGS,
        "modules": MODULES,
        "sdk": False,
        "code": str(ROOT / "sagemaker_code"),
    }


@pytest.mark.parametrize("airflow", ["3.2.1", "3.3.1"])
def test_managed_airflow_imports_what_make_mwaa_packs(airflow: str, unpacked: Path, tmp_path: Path) -> None:
    result = found(f"mwaa-{airflow}", unpacked / "dags", unpacked / "plugins", tmp_path / "home")
    assert result == {
        "airflow": airflow,
        "python": "3.12",
        "dags": DAGS,
        "modules": MODULES,
        "sdk": False,
        "code": str(unpacked / "plugins" / "sagemaker_code"),
    }


def test_an_older_airflow_is_refused_with_a_sentence(unpacked: Path, tmp_path: Path) -> None:
    result = probe("mwaa-3.0.6", unpacked / "dags", unpacked / "plugins", tmp_path / "home")
    assert result.returncode != 0
    assert f"needs Airflow {OLDEST_AIRFLOW} or later, and this is 3.0.6" in result.stderr


@pytest.mark.parametrize("airflow", ["3.2.1", "3.3.1"])
def test_everything_that_mwaa_installs_is_pinned(airflow: str) -> None:
    python = python_of(f"mwaa-{airflow}")
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    ).stdout
    installed = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}
    pinned = {
        name.lower().replace("_", "-"): pin
        for file in (ROOT / "requirements-mwaa.txt", PROBE.with_name(f"mwaa-{airflow}.txt"))
        for name, _, pin in (line.partition("==") for line in file.read_text().splitlines())
        if pin
    }
    assert {name: v for name, v in installed.items() if pinned.get(name) != v}.keys() <= {"pip", "setuptools"}
