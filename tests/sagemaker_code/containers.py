"""Training jobs as AWS runs them: a container's folders and AWS's toolkit; and small images to train on."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "sagemaker_code"
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared/data"))

CLASSES = {"001.Red_disc": (200, 60, 40), "002.Green_bar": (50, 170, 70), "003.Blue_box": (50, 80, 200)}
TRAIN = (sys.executable, "-m", "sagemaker_training.cli.train")
TINY = {"arch": "resnet18", "image-size": 32, "batch-size": 8, "epochs": 2, "lr": 0.05, "seed": 3}
"""Hyperparameters of a job that trains in a second."""


def draw_image(class_name: str, random: np.random.Generator, side: int = 40) -> Image.Image:
    """A noisy image with the class's shape and colour at a random place."""
    noise = random.integers(0, 60, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    left, top = random.integers(2, side // 2, 2).tolist()
    box = (left, top, left + side // 3, top + side // 3)
    draw = ImageDraw.Draw(image)
    colour = CLASSES[class_name]
    if "disc" in class_name:
        draw.ellipse(box, fill=colour)
    elif "bar" in class_name:
        draw.rectangle((left, 0, left + 6, side), fill=colour)
    else:
        draw.rectangle(box, fill=colour)
    return image


def draw_dataset(folder: Path, counts: Mapping[str, int]) -> Path:
    """`counts` images of every class below folder/<channel>/<class>; the same ones every time."""
    random = np.random.default_rng(7)
    for channel, count in counts.items():
        for class_name in CLASSES:
            target = folder / channel / class_name
            target.mkdir(parents=True)
            for number in range(count):
                draw_image(class_name, random).save(target / f"{number:03d}.jpg", quality=90)
    return folder


@dataclass(frozen=True)
class Outcome:
    """How a training job ended."""

    exit_code: int
    log: str
    failure: str
    """What the container reports as the reason; empty after a success."""


class Container:
    """The /opt/ml of one training job, and AWS's toolkit to run the script in it."""

    def __init__(self, base: Path) -> None:
        self.base = base
        for folder in ("input/config", "input/data", "model", "output/data", "code"):
            (base / folder).mkdir(parents=True)
        for entry in SOURCE.iterdir():
            if entry.name != "__pycache__":
                (base / "code" / entry.name).symlink_to(entry)

    @property
    def model_dir(self) -> Path:
        return self.base / "model"

    def metrics(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.base / "output/data/metrics.json").read_text())
        return content

    def configure(self, hyperparameters: Mapping[str, object], channels: Mapping[str, Path]) -> None:
        """Write what SageMaker writes before it starts a container."""
        config = self.base / "input/config"
        texts = {name: str(value) for name, value in hyperparameters.items()}
        texts |= {"sagemaker_program": "train.py", "sagemaker_submit_directory": str(self.base / "code")}
        (config / "hyperparameters.json").write_text(json.dumps(texts))
        (config / "inputdataconfig.json").write_text(
            json.dumps({name: {"TrainingInputMode": "File"} for name in channels})
        )
        (config / "resourceconfig.json").write_text(
            json.dumps({"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"})
        )
        for name, folder in channels.items():
            link = self.base / "input/data" / name
            if not link.exists():
                link.symlink_to(folder)

    def start(
        self, environment: Mapping[str, str] | None = None, command: Sequence[str] = TRAIN
    ) -> "subprocess.Popen[str]":
        """Start the toolkit as a process group of its own, as AWS's PyTorch container starts it."""
        return subprocess.Popen(
            command,
            cwd=self.base,
            env={
                **os.environ,
                "SAGEMAKER_BASE_DIR": str(self.base),
                "SAGEMAKER_TRAINING_MODULE": "sagemaker_pytorch_container.training:main",
                "SM_STUDIO_LOCAL_MODE": "true",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "OMP_NUM_THREADS": "1",
                **(environment or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(
        self,
        hyperparameters: Mapping[str, object],
        channels: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """A whole job."""
        self.configure(hyperparameters, channels)
        process = self.start(environment)
        log, _ = process.communicate(timeout=240)
        return self.outcome(process.returncode, log)

    def outcome(self, exit_code: int, log: str) -> Outcome:
        failure = self.base / "output/failure"
        return Outcome(exit_code, log, failure.read_text() if failure.exists() else "")


def channels_of(dataset: Path) -> dict[str, Path]:
    return {name: dataset / name for name in ("train", "valid", "test")}


def dashed(names: Mapping[str, object]) -> dict[str, object]:
    """Keyword names as hyperparameter names."""
    return {name.replace("_", "-"): value for name, value in names.items()}
