"""The trained model as files: a training job writes them to the model directory, an endpoint loads them.

    model.safetensors   weights and batch statistics
    model.json          architecture, classes and input: ModelCard
    config.yaml         for Ray Serve: which application to run
    deployment.py       for Ray Serve: the application
    code/               inference.py, for TorchServe, and the package `classifier`

The folder is complete: nothing is downloaded or installed at serving time.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.errors import ModelValueError
from classifier.files import write_atomically
from classifier.images import MEAN, STD
from classifier.model import build
from classifier.weights import read_weights, to_safetensors

WEIGHTS = "model.safetensors"
CARD = "model.json"
CODE = "code"
_PACKAGE = Path(__file__).parent
_SOURCE = _PACKAGE.parent
_SERVING = {"inference.py": CODE, "deployment.py": "", "config.yaml": ""}
"""Files for the model servers, and where they lie in the model's folder."""


@dataclass(frozen=True)
class ModelCard:
    """A model's architecture, input size in pixels, and classes in the order of its scores."""

    arch: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    weights_sha256: str = ""
    energies: tuple[float, ...] = ()
    """Quantiles of the test images' energies, ascending; see `prediction.Prediction`."""

    @classmethod
    def read(cls, model_dir: Path) -> "ModelCard":
        """Read a model folder's card. Raises ModelValueError if there is none that can be read."""
        file = model_dir / CARD
        try:
            fields: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in json.loads(file.read_text()).items()
            }
            return cls(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise ModelValueError(f"{file} cannot be read ({error}): train the model again") from error


def save_model(state: Mapping[str, torch.Tensor], card: ModelCard, model_dir: Path) -> None:
    """Write weights, card and serving code. A model that is there already is replaced file by file."""
    content = to_safetensors(state)
    card = dataclasses.replace(card, weights_sha256=hashlib.sha256(content).hexdigest())
    code = model_dir / CODE
    shutil.copytree(
        _PACKAGE, code / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    for name, folder in _SERVING.items():
        shutil.copyfile(_SOURCE / name, model_dir / folder / name)
    write_atomically(model_dir / WEIGHTS, content)
    write_atomically(model_dir / CARD, json.dumps(dataclasses.asdict(card), indent=2).encode())


def load_model(model_dir: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """The model that `save_model` wrote, in evaluation mode on `device`. Raises ModelValueError."""
    card = ModelCard.read(model_dir)
    model = build(card.arch, len(card.classes), card.image_size)
    model.load_state_dict(read_weights(model_dir / WEIGHTS))
    return model.to(device).eval(), card
