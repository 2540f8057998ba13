"""Which pipeline a command is about: its file, made where there is none, and the names that follow."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from demo.settings import ROOT, SAMPLE_PIPELINE, DemoError

PLUGINS = ROOT / "plugins"
SHARES = "0.8,0.1,0.1"
"""Of train, valid and test."""


@dataclass(frozen=True)
class Names:
    """A pipeline's name, and what is called after it. `dataset` is a key prefix without its last slash."""

    pipeline: str
    dag_id: str
    endpoint: str
    asset: str
    dataset: str
    bucket: str | None = None


SAMPLE = Names(
    SAMPLE_PIPELINE, "dog_breed_retraining", "dog-breed", "dog_breed_dataset", "datasets/dog_breed"
)


def name_for(data: Path) -> str:
    """The pipeline of a folder of images: the folder's own name, as a pipeline's name allows it."""
    name = re.sub(r"[^a-z0-9]+", "_", data.name.lower()).strip("_")[:63].rstrip("_")
    return name if name[:1].isalpha() else f"data_{name}".rstrip("_")


def names_of(pipeline: str) -> Names:
    """Read the pipeline's file. Raises DemoError with the file's mistake, or where there is none."""
    if not file_of(pipeline).exists():
        known = ", ".join(sorted(path.stem for path in file_of("*").parent.glob("*.yaml")))
        raise DemoError(
            f"PIPELINE={pipeline}: there is no {file_of(pipeline).relative_to(ROOT)}. There are: {known}. "
            f"Make one with: make pipeline NAME={pipeline}"
        )
    return Names(**json.loads(_files("names", pipeline)))


def create(pipeline: str) -> Path:
    """Write a file for a new pipeline. Raises DemoError for a name that no pipeline can have."""
    return Path(_files("new", pipeline).strip())


def arranged(source: Path, target: Path, shares: str | None) -> bool:
    """Make a dataset of a folder of images at `target`, which is shown as it goes; whether it was made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "retraining.dataset", str(source), str(target), shares or SHARES]
    return subprocess.run(command, env=_environment(), check=False).returncode == 0


def file_of(pipeline: str) -> Path:
    return ROOT / "dags" / "pipelines" / f"{pipeline}.yaml"


def _files(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "retraining.config.files", *arguments],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(done.stderr.strip())
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PLUGINS)}
