"""From images to their most probable classes; knows no model server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from classifier.artifact import ModelCard, load_model
from classifier.images import center_crop, decode, normalise, to_tensor

TOP = 5
"""Classes in a prediction, or all if there are fewer."""

Prediction = list[tuple[str, float]]
"""The TOP most probable classes with their probabilities, in descending order."""


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

    def warm_up(self) -> None:
        """Predict once: the first prediction is slower, as kernels are chosen and memory is allocated."""
        side = self.card.image_size
        self.probabilities(torch.zeros(1, 3, side, side, dtype=torch.uint8))

    def predict(self, image: Image.Image) -> Prediction:
        """The prediction for an opened image. Raises ImageValueError for a damaged one."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """The predictions for opened images, in their order. Raises ImageValueError for a damaged one."""
        return [
            self._top(row) for row in self.probabilities(torch.stack([self.read(image) for image in images]))
        ]

    def read(self, image: Image.Image) -> torch.Tensor:
        """An opened image as uint8 (3, side, side), cropped as in evaluation. Raises ImageValueError."""
        return to_tensor(center_crop(decode(image, self.card.image_size), self.card.image_size))

    def probabilities(self, batch: torch.Tensor) -> torch.Tensor:
        """Softmax scores, float32 (N, classes) on the CPU, of uint8 (N, 3, side, side)."""
        with torch.inference_mode():
            scores: torch.Tensor = self.model(normalise(batch.to(self.device)))
        return scores.float().softmax(1).cpu()

    def _top(self, probabilities: torch.Tensor) -> Prediction:
        top = probabilities.topk(min(TOP, len(self.card.classes)))
        classes = [self.card.classes[index] for index in top.indices.tolist()]
        return list(zip(classes, top.values.tolist(), strict=True))


def label(class_name: str) -> str:
    """A class folder's name as people read it: '001.German_shepherd' is 'German shepherd'."""
    number, dot, name = class_name.partition(".")
    return (name if dot and number.isdigit() else class_name).replace("_", " ")
