"""From images to their most probable classes; knows no model server."""

import math
from bisect import bisect_right
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


@dataclass(frozen=True)
class Prediction:
    """The TOP most probable classes with their probabilities, in descending order, and how sure that is.

    `entropy` is that of all probabilities, as a part of the largest possible: 0 for one class alone, 1 where
    all are equally probable. `familiarity` is the share of the test images whose energy (the logarithm of the
    summed exponentials of the scores, Liu et al. 2020, arXiv:2010.03759) is at most this image's: near 0 for
    what is unlike the classes, however probable one of them seems. None for a model without a test.
    """

    classes: list[tuple[str, float]]
    entropy: float
    familiarity: float | None


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

    def predict_tensors(self, batch: torch.Tensor) -> list[Prediction]:
        """The predictions for uint8 (N, 3, side, side), in their order."""
        return list(map(self._prediction, self.scores(batch)))

    def read(self, image: Image.Image) -> torch.Tensor:
        """An opened image as uint8 (3, side, side), cropped as in evaluation. Raises ImageValueError."""
        return to_tensor(center_crop(decode(image, self.card.image_size), self.card.image_size))

    def scores(self, batch: torch.Tensor) -> torch.Tensor:
        """The model's scores, float32 (N, classes) on the CPU, of uint8 (N, 3, side, side)."""
        with torch.inference_mode():
            scores: torch.Tensor = self.model(normalise(batch.to(self.device)))
        return scores.float().cpu()

    def probabilities(self, batch: torch.Tensor) -> torch.Tensor:
        """Softmax of the scores."""
        return self.scores(batch).softmax(1)

    def _prediction(self, scores: torch.Tensor) -> Prediction:
        probabilities = scores.softmax(0)
        top = probabilities.topk(min(TOP, len(self.card.classes)))
        classes = [self.card.classes[index] for index in top.indices.tolist()]
        largest = math.log(max(2, len(self.card.classes)))
        return Prediction(
            list(zip(classes, top.values.tolist(), strict=True)),
            torch.special.entr(probabilities).sum().item() / largest,
            familiarity(scores.logsumexp(0).item(), self.card.energies),
        )


def familiarity(energy: float, energies: Sequence[float]) -> float | None:
    """The share of the ascending `energies` that are at most `energy`."""
    return round(bisect_right(energies, energy) / len(energies), 4) if energies else None


def label(class_name: str) -> str:
    """A class folder's name as people read it: '001.German_shepherd' is 'German shepherd'."""
    number, dot, name = class_name.partition(".")
    return (name if dot and number.isdecimal() else class_name).replace("_", " ")
