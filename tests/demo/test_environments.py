"""Building environments, with one tiny pinned package from the index in place of the project's hundreds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from demo import environments
from demo.environments import Environment, SetupError, build, check_python, installed

PACKAGE = "iniconfig==2.3.1"
TOOLS = Path(sys.prefix).parents[1] / "tools"  # what `make setup` built beside this environment


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder for environments, with this machine's uv in it."""
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "tools").symlink_to(TOOLS)
    return tmp_path / "local"


@pytest.fixture
def tiny(tmp_path: Path) -> Environment:
    pins = tmp_path / "requirements.txt"
    pins.write_text(f"{PACKAGE}\n    # via nothing\n")
    return Environment("tiny", "a tiny environment", (pins,), disk_gb=0.01)


def can_import(folder: Path, module: str) -> bool:
    command = [str(folder / "bin" / "python"), "-c", f"import {module}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_an_environment_is_built_once(
    local: Path, tiny: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert build(tiny, local, development=False)
    assert can_import(local / "envs" / "tiny", "iniconfig")
    assert "a tiny environment, 1 packages ... " in capfd.readouterr().out
    assert not build(tiny, local, development=False)
    assert capfd.readouterr().out == ""


def test_changed_pins_are_installed(local: Path, tiny: Environment) -> None:
    build(tiny, local, development=False)
    tiny.pins[0].write_text(f"{PACKAGE}\nexecnet==2.1.2\n")
    assert build(tiny, local, development=False)
    assert can_import(local / "envs" / "tiny", "execnet")


def test_a_project_is_installed_in_place(local: Path, tiny: Environment, tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "src" / "here").mkdir(parents=True)
    (project / "src" / "here" / "__init__.py").touch()
    text = (environments.ROOT / "local_sagemaker" / "pyproject.toml").read_text()
    build_system = text[text.index("[build-system]") :]
    (project / "pyproject.toml").write_text(f'[project]\nname = "here"\nversion = "1"\n{build_system}')
    with_project = replace(tiny, project=project)
    assert build(with_project, local, development=False)
    assert not build(with_project, local, development=False)
    (project / "src" / "here" / "later.py").touch()
    assert can_import(local / "envs" / "tiny", "here.later")
    (project / "pyproject.toml").write_text(f'[project]\nname = "here"\nversion = "2"\n{build_system}')
    assert build(with_project, local, development=False)


def test_an_interrupted_installation_is_taken_up_again(local: Path, tiny: Environment) -> None:
    folder = local / "envs" / "tiny"
    build(tiny, local, development=False)
    (folder / environments.STAMP).unlink()
    (folder / "bin" / "python").unlink()
    assert build(tiny, local, development=False)
    assert can_import(folder, "iniconfig")


def test_an_environment_that_was_moved_is_built_again(local: Path, tiny: Environment) -> None:
    build(tiny, local, development=False)
    (local / "envs" / "tiny").rename(local / "envs" / "elsewhere")
    assert installed(local / "envs" / "elsewhere") == {}


def test_a_package_that_cannot_be_had_is_reported_with_the_log(local: Path, tiny: Environment) -> None:
    tiny.pins[0].write_text("iniconfig==0.0.0.1\n")
    with pytest.raises(SetupError, match=r"(?s)uv ended with status 1.*iniconfig.*Whole log: .*setup\.log"):
        build(tiny, local, development=False)
    assert installed(local / "envs" / "tiny") == {}


def test_a_full_disk_is_known_before_anything_is_installed(local: Path, tiny: Environment) -> None:
    greedy = Environment(tiny.name, tiny.title, tiny.pins, disk_gb=1e9)
    with pytest.raises(SetupError, match=r"needs 1000000000\.0 GB, .* make LOCAL_DIR="):
        build(greedy, local, development=False)


def test_another_python_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PYTHON_VERSION", "3.9")
    with pytest.raises(SetupError, match=r"Python 3\.9 is needed.*make PYTHON=/path/to/python3\.9"):
        check_python()


def test_another_python_is_found_or_its_absence_says_how_to_install_it() -> None:
    uv = TOOLS / "bin" / "uv"
    assert environments.find_python(environments.PYTHON_VERSION, uv) == Path(sys.executable)
    with pytest.raises(SetupError, match=r"uv python install 3\.99"):
        environments.find_python("3.99", uv)
