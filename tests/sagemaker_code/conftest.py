"""Fixtures of the container side's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import train

from tests.sagemaker_code.containers import TINY, Container, channels_of, dashed, draw_dataset


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks gain nothing from more threads, which only wait for each other on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three classes; tests must not change it."""
    return draw_dataset(tmp_path_factory.mktemp("dataset"), {"train": 14, "valid": 6, "test": 5})


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """A small dataset of three classes for a test to spoil."""
    return draw_dataset(tmp_path / "dataset", {"train": 3, "valid": 1, "test": 1})


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "opt_ml")


Trainer = Callable[..., Path]


@pytest.fixture
def train_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """Runs train.py's main in this process, for tests that need no container around it.

    Called with a dataset and hyperparameters it returns the job's folder; `job` names it, and the same name
    twice is the same folder.
    """
    monkeypatch.delenv("SMDEBUG_CONFIG_FILE_PATH", raising=False)
    deterministic = torch.are_deterministic_algorithms_enabled()

    def run(
        dataset: Path, job: str = "job", pretrained: Path | None = None, **hyperparameters: object
    ) -> Path:
        base = tmp_path / job
        for folder in ("model", "output/data"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(base))
        channels = channels_of(dataset) | ({"pretrained": pretrained} if pretrained else {})
        options = TINY | dashed(hyperparameters) | channels
        train.main([text for name, value in options.items() for text in (f"--{name}", str(value))])
        return base

    yield run
    torch.use_deterministic_algorithms(deterministic)
