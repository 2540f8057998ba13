"""From one image to its most probable classes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from classifier.artifact import ModelCard, load_model
from classifier.images import center_crop, decode, normalise, to_tensor

TOP = 5
"""Classes in a prediction, or all if there are fewer."""


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

    def predict(self, image: Image.Image) -> list[tuple[str, float]]:
        """The TOP most probable classes of an opened image with their probabilities, in descending order.

        Uses the crop that evaluation uses. Raises ImageValueError for a damaged image.
        """
        crop = center_crop(decode(image, self.card.image_size), self.card.image_size)
        batch = to_tensor(crop).unsqueeze(0).to(self.device)
        with torch.inference_mode():
            probabilities = self.model(normalise(batch))[0].float().softmax(0).cpu()
        top = probabilities.topk(min(TOP, len(self.card.classes)))
        classes = [self.card.classes[index] for index in top.indices.tolist()]
        return list(zip(classes, top.values.tolist(), strict=True))


def label(class_name: str) -> str:
    """A class folder's name as people read it: '001.German_shepherd' is 'German shepherd'."""
    number, dot, name = class_name.partition(".")
    return (name if dot and number.isdigit() else class_name).replace("_", " ")
