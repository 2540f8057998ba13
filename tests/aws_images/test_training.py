"""Trainings in the environments of AWS's training images, started as AWS starts them.

The toolkit, the module that SAGEMAKER_TRAINING_MODULE names, and the libraries are those of the image; no
index can be reached. tests/sagemaker_code runs in the same environments (`make test-aws-images`).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import debugger  # noqa: F401  (makes smdebug importable)
import pytest
import smdebug
import torch
from classifier.artifact import load_model
from smdebug.trials import create_trial

from tests.sagemaker_code.containers import SOURCE, TINY, Container, channels_of, draw_dataset

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
HOOK = {
    "S3OutputPath": "s3://bucket/output",
    "HookParameters": {"train.save_interval": "1", "eval.save_interval": "1"},
    "CollectionConfigurations": [{"CollectionName": "losses"}, {"CollectionName": "gradients"}],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("dataset"), {"train": 14, "valid": 6, "test": 5})


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path / "opt_ml")


def test_the_image_has_no_smdebug_and_keeps_its_libraries() -> None:
    assert Path(str(smdebug.__file__)).is_relative_to(SOURCE / "wheels")
    assert version("protobuf").startswith("6.")
    assert not (SOURCE / "requirements.txt").exists()


def test_debugger_off(container: Container, dataset: Path) -> None:
    outcome = container.run(TINY | {"debugger": "off"}, channels_of(dataset), OFFLINE)
    assert outcome.exit_code == 0, outcome.log
    assert "no tensors are saved" in outcome.log
    load_model(container.model_dir, torch.device("cpu"))


def test_debugger_of_the_service(container: Container, dataset: Path) -> None:
    tensors = container.base / "output/tensors"
    configuration = container.base / "input/config/debughookconfig.json"
    configuration.write_text(json.dumps({**HOOK, "LocalPath": str(tensors)}))
    environment = OFFLINE | {"SMDEBUG_CONFIG_FILE_PATH": str(configuration)}
    outcome = container.run(TINY, channels_of(dataset), environment)
    assert outcome.exit_code == 0, outcome.log
    trial = create_trial(str(tensors))
    assert len(trial.steps()) > 1
    assert trial.tensor_names(collection="losses")


def test_debugger_in_the_job(container: Container, dataset: Path) -> None:
    """The rules' parameters pass through the shell command that the toolkit makes of hyperparameters."""
    rules = "LossNotDecreasing:tensor_regex=%2Eloss%24%20%22:num_steps=1,Overfit:patience=1,ProfilerReport"
    hyperparameters = TINY | {"debugger": "in_job", "debugger-rules": rules}
    outcome = container.run(hyperparameters, channels_of(dataset), OFFLINE)
    assert outcome.exit_code == 0, outcome.log
    results = container.base / "output/data/debugger"
    assert {path.stem for path in (results / "rules").glob("*.json")} >= {"LossNotDecreasing", "Overfit"}
    assert (results / "profiler-report.html").exists()
    assert "rule=Overfit status=" in outcome.log


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare: PID namespaces cannot be made here")
def test_a_stop_reaches_only_the_first_process_and_leaves_the_last_epoch(
    container: Container, dataset: Path
) -> None:
    """As on AWS: SIGTERM to a shell with process id 1, which does not pass it on; later SIGKILL."""
    (container.base / "checkpoints").mkdir()
    container.configure(TINY | {"epochs": 30}, channels_of(dataset))
    namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    first = f'echo first process $$; "{sys.executable}" -m sagemaker_training.cli.train; exit $?'
    process = container.start(OFFLINE, [*namespace, "bash", "-c", first])
    assert process.stdout
    epochs = 0
    for line in process.stdout:
        if line.startswith("first process"):
            assert line.split()[-1] == "1"
        if line.startswith("epoch="):
            epochs += 1
            if epochs == 2:
                subprocess.run(["pkill", "-TERM", "-P", str(process.pid)], check=True)
            if epochs == 4:  # it went on after the signal
                break
    assert epochs == 4, "the training ended at SIGTERM"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert len(container.metrics()["history"]) >= 3  # type: ignore[arg-type]
    load_model(container.model_dir, torch.device("cpu"))
    assert list((container.base / "checkpoints").iterdir())
