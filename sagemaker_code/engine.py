"""One epoch of training and one evaluation, for any model, loader and device."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from data import Loader, normalise
from debugger.steps import StepTimer
from errors import DivergenceValueError
from hook import Phase, TensorHook
from model import train_mode
from torch import nn


class StopRequestedError(Exception):
    """Training was asked to end before its last epoch."""


@dataclass(frozen=True)
class EpochResult:
    """Means over the pictures of one epoch of training, as they were seen while the weights changed."""

    loss: float
    accuracy: float
    images: int


@dataclass(frozen=True)
class Evaluation:
    """A model's answers on a whole data set, in the loader's order."""

    loss: float
    labels: torch.Tensor
    """int64, shape (N,)"""
    probabilities: torch.Tensor
    """float32, shape (N, classes)"""

    @property
    def predictions(self) -> torch.Tensor:
        """The most probable class of each picture: int64, shape (N,)."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """Part of the pictures whose most probable class is their label."""
        return (self.predictions == self.labels).double().mean().item()

    def confusion(self, class_count: int) -> torch.Tensor:
        """Pictures of each label (rows) by predicted class (columns): int64, shape (classes, classes)."""
        pairs = self.labels * class_count + self.predictions
        return torch.bincount(pairs, minlength=class_count**2).reshape(class_count, class_count)


@dataclass(frozen=True)
class Optimisation:
    """What changes the weights: optimiser, schedule per step, and the gradient scaler of mixed precision."""

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    max_gradient_norm: float
    """Gradients with a larger L2 norm are shortened to it."""

    def step(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Update the model once from the gradients of `loss`."""
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()


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

    Raises StopRequestedError between two batches, and DivergenceValueError when the mean loss is not finite.
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
            with torch.autocast(device.type, torch.float16, enabled=optimisation.scaler.is_enabled()):
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
    """Ask the model about every picture; `criterion` must average over its batch."""
    model.eval()
    if hook:
        hook.enter(phase)
    loss_sum = torch.zeros((), device=device)
    all_labels, all_probabilities = [], []
    timer = timer or StepTimer(None)
    for images, labels in timer.batches(loader, phase.value):
        with timer.step(phase.value):
            scores = model(normalise(_to(device, images)))
            loss_sum += criterion(scores, _to(device, labels)) * len(labels)
        all_labels.append(labels)
        all_probabilities.append(scores.float().softmax(1).cpu())
    label_tensor = torch.cat(all_labels)
    return Evaluation(loss_sum.item() / len(label_tensor), label_tensor, torch.cat(all_probabilities))


def _to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device, non_blocking=True)
