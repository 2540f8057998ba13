"""From one image to its most probable classes: what an endpoint responds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from classifier.artifact import ModelCard, load_model
from classifier.images import center_crop, decode, normalise, to_tensor

TOP = 5
"""Classes in a response, or all if there are fewer."""


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode with the card that describes its input and classes."""

    model: nn.Module
    card: ModelCard
    device: torch.device

    @classmethod
    def load(cls, model_dir: Path) -> "Classifier":
        """Load a training job's model, onto the GPU if there is one. Raises ModelValueError."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(*load_model(model_dir, device), device)

    def predict(self, image: Image.Image) -> dict[str, Any]:
        """The TOP most probable classes of an opened image. Raises ImageValueError if it is damaged."""
        card = self.card
        crop = center_crop(decode(image, card.image_size), card.image_size)
        batch = to_tensor(crop).unsqueeze(0).to(self.device)
        with torch.inference_mode():
            probabilities = self.model(normalise(batch))[0].float().softmax(0).cpu()
        top = probabilities.topk(min(TOP, len(card.classes)))
        return {
            "predictions": [
                {
                    "class": card.classes[index],
                    "label": label(card.classes[index]),
                    "probability": probability,
                }
                for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
            ],
            "model": {
                "arch": card.arch,
                "classes": len(card.classes),
                "image_size": card.image_size,
                "weights_sha256": card.weights_sha256,
            },
        }


def label(class_name: str) -> str:
    """A class folder's name as people read it: '001.German_shepherd' is 'German shepherd'."""
    number, dot, name = class_name.partition(".")
    return (name if dot and number.isdigit() else class_name).replace("_", " ")
