"""The trained model as files: what a training job leaves in the model directory and an endpoint loads.

    model.safetensors   weights and batch statistics
    model.json          what else it takes to answer: ModelCard
    code/               the modules that serve it

The folder is complete: nothing is downloaded at serving time.
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
from data import MEAN, STD
from errors import ModelValueError
from files import write_atomically
from model import build
from torch import nn
from weights import read_weights, to_safetensors

WEIGHTS = "model.safetensors"
CARD = "model.json"
SERVING_MODULES = ("inference", "artifact", "model", "weights", "data", "errors", "files")


@dataclass(frozen=True)
class ModelCard:
    """A model's architecture, input and classes; `classes` are in the order of its scores."""

    arch: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    weights_sha256: str = ""

    @classmethod
    def read(cls, model_dir: Path) -> "ModelCard":
        """Raise ModelValueError if the folder holds no readable card."""
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
    """Write weights, card and serving code; an earlier model in the folder is replaced file by file."""
    content = to_safetensors(state)
    card = dataclasses.replace(card, weights_sha256=hashlib.sha256(content).hexdigest())
    code = model_dir / "code"
    code.mkdir(parents=True, exist_ok=True)
    for module in SERVING_MODULES:
        shutil.copyfile(Path(__file__).with_name(f"{module}.py"), code / f"{module}.py")
    write_atomically(model_dir / WEIGHTS, content)
    write_atomically(model_dir / CARD, json.dumps(dataclasses.asdict(card), indent=2).encode())


def load_model(model_dir: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """The model of a folder that `save_model` wrote, in evaluation mode."""
    card = ModelCard.read(model_dir)
    model = build(card.arch, len(card.classes), card.image_size)
    model.load_state_dict(read_weights(model_dir / WEIGHTS))
    return model.to(device).eval(), card
