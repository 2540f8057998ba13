"""What updates the weights: SGD with Nesterov momentum, a learning rate schedule, gradient clipping."""

import math
from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from classifier.arguments import is_watched
from classifier.data import ImageDataset
from classifier.images import normalise
from classifier.model import head_input_energy
from classifier.precision import autocast_dtype

WARM_UP = 0.1
"""Part of all steps in which the learning rate rises to its peak; it then falls to zero along a cosine."""
MAX_GRADIENT_NORM = 2.0
"""Limit of the gradients' L2 norm: networks without batch normalisation diverge at large rates otherwise."""
HEAD_INPUT_NORM = 15.0
"""Best of 7, 10, 15 and 20 for learning rates from 0.01 to 0.1, on SqueezeNet's features of dogs."""
HEAD_INPUT_SAMPLE = 256
"""Training images on which the norm of a head's inputs is measured."""


@dataclass(frozen=True)
class Optimisation:
    """Optimiser, schedule per step, precision and limit of the gradients."""

    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    autocast: torch.dtype | None
    """The dtype of the forward pass; None for float32. See `precision`."""
    max_gradient_norm: float
    """Gradients with a larger L2 norm are scaled down to it."""

    @cached_property
    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss for float16, and does nothing elsewhere."""
        return torch.amp.GradScaler(enabled=self.autocast is torch.float16)

    def step(self, model: nn.Module, loss: torch.Tensor) -> None:
        """Update the model once from the gradients of `loss`; the schedule moves on in any case."""
        self.optimizer.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()


def make_optimisation(
    arguments: Namespace, model: nn.Module, train: ImageDataset, device: torch.device
) -> Optimisation:
    """The optimisation that a job's hyperparameters ask for, on `device`."""
    steps: int = math.ceil(len(train) / arguments.batch_size) * arguments.epochs
    warm_up = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up + 1))

    optimizer = torch.optim.SGD(
        parameter_groups(arguments, model, train, device),
        lr=arguments.lr,
        momentum=arguments.momentum,
        nesterov=arguments.momentum > 0,
    )
    return Optimisation(
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        autocast_dtype(device, watched=is_watched(arguments)),
        max_gradient_norm=math.inf if arguments.trainable == "head" else MAX_GRADIENT_NORM,
    )


def parameter_groups(
    arguments: Namespace, model: nn.Module, train: ImageDataset, device: torch.device
) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and norms, which do not.

    A head alone on a frozen backbone is trained as if its inputs had the L2 norm HEAD_INPUT_NORM. The same
    learning rates then suit every backbone, whatever the scale of its features (normalised least mean
    squares, Widrow and Hoff). Dividing the inputs by c is equivalent to dividing the initial weights by c and
    the learning rate by c^2.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights: dict[str, Any] = {
        "params": [parameter for parameter in trained if parameter.ndim > 1],
        "weight_decay": arguments.weight_decay,
    }
    if arguments.trainable == "head":
        sample = Subset(train, range(0, len(train), max(1, len(train) // HEAD_INPUT_SAMPLE)))
        batches = DataLoader(sample, batch_size=arguments.batch_size)
        energy = head_input_energy(model, (normalise(images.to(device)) for images, _ in batches))
        c = math.sqrt(energy) / HEAD_INPUT_NORM
        if c > 0:
            for weight in weights["params"]:
                weight.data.div_(c)
            weights |= {"lr": arguments.lr / c**2, "weight_decay": arguments.weight_decay * c**2}
    return [weights, {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}]
