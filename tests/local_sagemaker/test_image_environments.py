"""Environments of images: the mapping file, and private environments on top."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from local_sagemaker.errors import ValidationError
from local_sagemaker.image_environments import (
    ENVIRONMENTS_VARIABLE,
    Environment,
    Images,
    ImagesFileError,
    overlay,
)

CONTENT = """
environments: envs
images:
  - {match: '.*/pytorch-training:2\\..*', environment: training}
  - {match: '.*/pytorch-.*', environment: other}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(ENVIRONMENTS_VARIABLE, raising=False)
    for name in ("training", "other"):
        python = tmp_path / "envs" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    path = tmp_path / "images.yaml"
    path.write_text(CONTENT)
    return path


def test_first_match_wins(file: Path) -> None:
    images = Images(file)
    assert images.resolve("1.dkr/pytorch-training:2.6").python == file.parent / "envs/training/bin/python"
    assert images.resolve("1.dkr/pytorch-training:1.8").folder.name == "other"


def test_an_unknown_image_is_refused_with_image_and_file(file: Path) -> None:
    with pytest.raises(ValidationError, match=r"'1\.dkr/xgboost:1'.*images\.yaml"):
        Images(file).resolve("1.dkr/xgboost:1")


def test_an_environment_that_is_not_built_is_named(file: Path) -> None:
    (file.parent / "envs/training/bin/python").unlink()
    with pytest.raises(ValidationError, match="envs/training/bin/python is missing"):
        Images(file).resolve("1.dkr/pytorch-training:2.6")


def test_the_environments_can_be_elsewhere(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "envs").rename(elsewhere)
    monkeypatch.setenv(ENVIRONMENTS_VARIABLE, str(elsewhere))
    assert Images(file).resolve("1.dkr/pytorch-training:2.6").folder == elsewhere / "training"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("images: [", "is not YAML"),
        ("images: 3", "needs a list 'images'"),
        ("images: [{match: x}]", "needs 'match' and 'environment'"),
        ("images: [{match: '(', environment: x}]", "no.* a regular expression"),
    ],
)
def test_a_broken_file_is_explained(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(content)
    with pytest.raises(ImagesFileError, match=words):
        Images(path)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ImagesFileError, match="cannot read"):
        Images(tmp_path / "no.yaml")


def test_an_overlay_sees_the_packages_of_its_base_and_keeps_its_own(tmp_path: Path) -> None:
    base = Environment("image", Path(sys.prefix))
    top = overlay(base, tmp_path / "overlay")
    assert overlay(base, tmp_path / "overlay") == top
    (tmp_path / "overlay/lib").glob("*")
    script = "import sys, sysconfig, yaml; print(sys.prefix); print(sysconfig.get_paths()['purelib'])"
    output = subprocess.run([top.python, "-c", script], capture_output=True, text=True, check=True).stdout
    prefix, site_packages = output.split()
    assert prefix == str(tmp_path / "overlay")
    assert Path(site_packages).is_relative_to(tmp_path / "overlay")
