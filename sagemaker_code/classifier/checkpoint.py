"""One checkpoint per epoch: an interrupted job resumes from it and ends with the same model.

SageMaker copies the checkpoint folder to S3 while a job runs, and back when the job restarts after losing its
spot instance. The random numbers, the order and the crops of an epoch follow from its number and the seed, so
a checkpoint stores no random state.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.errors import CheckpointValueError
from classifier.files import write_atomically
from classifier.optimisation import Optimisation

_FILE = "checkpoint.pt"

State = dict[str, torch.Tensor]


@dataclass
class Progress:
    """The metrics of each finished epoch and the weights of the best one."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    """Counted from 1; 0 until the first epoch has ended."""
    best_state: State = field(default_factory=dict)

    def add(self, metrics: dict[str, float], model: nn.Module) -> None:
        """Add an epoch. The best has the highest validation accuracy and, among equals, the lowest loss."""
        self.history.append(metrics)
        best = max(self.history, key=lambda row: (row["valid_accuracy"], -row["valid_loss"]))
        if best is metrics:
            self.best_epoch = len(self.history)
            self.best_state = {
                name: value.detach().cpu().clone() for name, value in model.state_dict().items()
            }


def save_checkpoint(
    folder: Path, job: Mapping[str, Any], model: nn.Module, optimisation: Optimisation, progress: Progress
) -> None:
    """Replace the folder's checkpoint; only a job with an equal `job` can resume from it."""
    best_is_current = progress.best_epoch == len(progress.history)
    content = {
        "job": dict(job),
        "model": model.state_dict(),
        "optimizer": optimisation.optimizer.state_dict(),
        "scheduler": optimisation.scheduler.state_dict(),
        "scaler": optimisation.scaler.state_dict(),
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "best_state": None if best_is_current else progress.best_state,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / _FILE, buffer.getvalue())


def load_checkpoint(
    folder: Path, job: Mapping[str, Any], model: nn.Module, optimisation: Optimisation
) -> Progress:
    """Restore model and optimisation from the folder's checkpoint, if there is one.

    Raises CheckpointValueError if it is damaged or belongs to another job.
    """
    file = folder / _FILE
    if not file.exists():
        return Progress()
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        stored = dict(content["job"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointValueError(f"{file} is damaged: delete it to train from the start") from error
    differing = [name for name, value in job.items() if stored.get(name) != value]
    if differing:
        raise CheckpointValueError(
            f"{file} belongs to a job with another {', '.join(differing)}: empty the checkpoint folder "
            "or give this job its own"
        )
    model.load_state_dict(content["model"])
    optimisation.optimizer.load_state_dict(content["optimizer"])
    optimisation.scheduler.load_state_dict(content["scheduler"])
    if content.get("scaler"):
        optimisation.scaler.load_state_dict(content["scaler"])
    best_state = content["model"] if content["best_state"] is None else content["best_state"]
    return Progress(content["history"], content["best_epoch"], best_state)
