"""One epoch of training and one evaluation, for any model, loader and device."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from debugger.hook import Phase, TensorHook
from debugger.steps import StepTimer
from torch import nn

from classifier.data import Loader
from classifier.errors import DivergenceValueError
from classifier.images import normalise
from classifier.model import train_mode
from classifier.optimisation import Optimisation

PERCENTILES = 101


class StopRequestedError(Exception):
    """The job was asked to stop before its last epoch."""


@dataclass(frozen=True)
class EpochResult:
    """Means over the images of one training epoch, each measured when its batch was trained."""

    loss: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions on a dataset, in the loader's order."""

    loss: float
    labels: torch.Tensor
    """int64, shape (N,)"""
    probabilities: torch.Tensor
    """float32, shape (N, classes)"""
    energies: torch.Tensor
    """float32, shape (N,): see `prediction.Prediction`"""

    @property
    def predictions(self) -> torch.Tensor:
        """The most probable class of each image: int64, shape (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Part of the images whose most probable class is their label."""
        return (self.predictions == self.labels).double().mean().item()

    def energy_quantiles(self) -> tuple[float, ...]:
        """The energies in ascending order; percentiles of more than a hundred."""
        if len(self.energies) <= PERCENTILES:
            return tuple(self.energies.sort().values.tolist())
        return tuple(self.energies.quantile(torch.linspace(0, 1, PERCENTILES)).tolist())

    def confusion(self, class_count: int) -> torch.Tensor:
        """Images of each label (rows) by predicted class (columns): int64, shape (classes, classes)."""
        pairs = self.labels * class_count + self.predictions
        return torch.bincount(pairs, minlength=class_count**2).reshape(class_count, class_count)


def train_one_epoch(
    model: nn.Module,
    criterion: nn.Module,
    loader: Loader,
    optimisation: Optimisation,
    device: torch.device,
    *,
    hook: TensorHook | None = None,
    timer: StepTimer | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> EpochResult:
    """Train on every batch once.

    Raises StopRequestedError between two batches, and DivergenceValueError if the mean loss is not finite.
    """
    train_mode(model)
    if hook:
        hook.enter(Phase.TRAIN)
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device, dtype=torch.int64)
    images_seen = 0
    timer = timer or StepTimer(None)
    for images, labels in timer.batches(loader, Phase.TRAIN.value):
        if stop_requested():
            raise StopRequestedError
        with timer.step(Phase.TRAIN.value):
            inputs, targets = _to(device, images), _to(device, labels)
            with torch.autocast(
                device.type, optimisation.autocast, enabled=optimisation.autocast is not None
            ):
                scores = model(normalise(inputs))
                loss = criterion(scores, targets)
            optimisation.step(model, loss)
        loss_sum += loss.detach() * len(labels)
        correct += (scores.detach().argmax(1) == targets).sum()
        images_seen += len(labels)
    mean_loss = loss_sum.item() / images_seen
    if not math.isfinite(mean_loss):
        raise DivergenceValueError(f"the training loss became {mean_loss}: lower lr or momentum")
    return EpochResult(mean_loss, correct.item() / images_seen, images_seen)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    criterion: nn.Module,
    loader: Loader,
    device: torch.device,
    *,
    hook: TensorHook | None = None,
    timer: StepTimer | None = None,
    phase: Phase = Phase.EVAL,
) -> Evaluation:
    """Predict every image, in float32; `criterion` must average over its batch."""
    model.eval()
    if hook:
        hook.enter(phase)
    loss_sum = torch.zeros((), device=device)
    all_labels, all_scores = [], []
    timer = timer or StepTimer(None)
    for images, labels in timer.batches(loader, phase.value):
        with timer.step(phase.value):
            scores = model(normalise(_to(device, images)))
            loss_sum += criterion(scores, _to(device, labels)) * len(labels)
        all_labels.append(labels)
        all_scores.append(scores.float().cpu())
    label_tensor = torch.cat(all_labels)
    scores = torch.cat(all_scores)
    loss = loss_sum.item() / len(label_tensor)
    return Evaluation(loss, label_tensor, scores.softmax(1), scores.logsumexp(1))


def _to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device, non_blocking=True)
