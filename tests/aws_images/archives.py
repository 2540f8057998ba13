"""A small trained-looking model as training leaves it, and what is asked of its servers."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from classifier.artifact import ModelCard, save_model
from classifier.model import build
from PIL import Image

CARD = ModelCard("resnet18", ("001.Red_disc", "002.Green_bar", "003.Blue_box"), 48)
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"

REFUSALS = [
    (b"no image", "image/jpeg", 400, "the request body is not an image"),
    (b"", "image/jpeg", 400, "no body"),
    (b"1,2,3", "text/csv", 415, "content type 'text/csv' is not supported"),
]
"""Body, content type, and the response's status and reason."""


def write_model(folder: Path) -> None:
    """A model with random weights, the same each time."""
    torch.manual_seed(7)
    model = build(CARD.arch, len(CARD.classes), CARD.image_size)
    save_model(model.state_dict(), CARD, folder)


def break_model(folder: Path) -> None:
    """Damage the weights, so that the model cannot be loaded."""
    (folder / "model.safetensors").write_bytes(b"not a model")


def images() -> list[bytes]:
    """Photographs where there are any, else drawn ones."""
    photos = sorted(PHOTOS.glob("*.jpg"))[:5] if PHOTOS.is_dir() else []
    return [photo.read_bytes() for photo in photos] or [_drawn(colour) for colour in ("red", "navy", "olive")]


def _drawn(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_mandelbrot((160, 120), (-2, -1, 1, 1), 40).convert("RGB").point(lambda v: v // 2).save(
        buffer, "JPEG"
    )
    base = Image.open(buffer)
    Image.blend(base.convert("RGB"), Image.new("RGB", base.size, colour), 0.5).save(
        buffer := io.BytesIO(), "JPEG"
    )
    return buffer.getvalue()
