"""A training job: prepare, train epoch by epoch, test the best model, write the results.

Every epoch leaves the best model so far, the metrics and, where the job has one, a checkpoint: a job that is
stopped or loses its spot instance is killed without a signal to this script.

Reads the channels `train`, `valid`, `test` and, if present, `pretrained`. Logs one line of metrics per epoch,
from which SageMaker takes the objective metric, and keeps the model of the best epoch.
"""

import csv
import io
import json
import logging
import math
import threading
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from debugger.hook import Phase, TensorHook, open_hook
from debugger.hook_config import RunLength
from debugger.monitor import Watch
from debugger.steps import StepTimer
from torch import nn

from classifier import data
from classifier.arguments import AUTO, hyperparameters, pretrained_file
from classifier.artifact import ModelCard, save_model
from classifier.checkpoint import Progress, load_checkpoint, save_checkpoint
from classifier.engine import Evaluation, StopRequestedError, evaluate, train_one_epoch
from classifier.files import write_atomically
from classifier.model import build, freeze, load_pretrained, native_size
from classifier.optimisation import Optimisation, make_optimisation

logger = logging.getLogger("train")


@dataclass(frozen=True)
class Job:
    """Everything that stays the same while a job trains."""

    arguments: Namespace
    device: torch.device
    card: ModelCard
    sampler: data.EpochSampler
    loaders: Mapping[str, data.Loader]
    """By channel; each lives as long as the job, and so do its workers."""
    image_counts: Mapping[str, int]
    model: nn.Module
    criterion: nn.Module
    hook: TensorHook | None
    optimisation: Optimisation
    timer: StepTimer
    stop: threading.Event

    @property
    def identity(self) -> dict[str, Any]:
        """What two jobs must have in common for one to resume from the other's checkpoint."""
        return {**hyperparameters(self.arguments), "classes": list(self.card.classes)}

    @property
    def checkpoints(self) -> Path | None:
        """The checkpoint folder; SageMaker creates it only for jobs with a CheckpointConfig."""
        folder: Path = self.arguments.checkpoint_dir
        return folder if folder.is_dir() else None


def prepare(arguments: Namespace, device: torch.device, stop: threading.Event, watch: Watch) -> Job:
    """Load the data, build model and loaders. Raises InputValueError for bad input of any kind."""
    left_out = data.read_left_out(arguments.left_out)
    train = data.list_images("train", arguments.train, left_out=left_out)
    listings = [train] + [
        data.list_images(name, getattr(arguments, name), train.classes, left_out)
        for name in ("valid", "test")
    ]
    if arguments.image_size is None:
        arguments.image_size = max(data.choose_image_size(train), native_size(arguments.arch))
    model = make_model(arguments, len(train.classes)).to(device)
    datasets = load_datasets(listings, arguments.image_size, arguments.cache_mb * 2**20)
    criterion = nn.CrossEntropyLoss(label_smoothing=arguments.label_smoothing)
    hook = open_hook(watch.hook_configuration(run_length(arguments, datasets)), model, criterion)
    sampler = data.EpochSampler(len(datasets["train"]), arguments.seed)
    loading = data.LoaderOptions(
        arguments.batch_size, arguments.num_workers, pin_memory=device.type == "cuda"
    )
    return Job(
        arguments=arguments,
        device=device,
        card=ModelCard(arguments.arch, train.classes, arguments.image_size),
        sampler=sampler,
        loaders={
            "train": data.training_loader(datasets["train"], loading, sampler),
            "valid": data.evaluation_loader(datasets["valid"], loading),
            "test": data.evaluation_loader(datasets["test"], loading),
        },
        image_counts={channel: len(dataset) for channel, dataset in datasets.items()},
        model=model,
        criterion=criterion,
        hook=hook,
        optimisation=make_optimisation(arguments, model, datasets["train"], device),
        timer=watch.steps,
        stop=stop,
    )


def run_length(arguments: Namespace, datasets: Mapping[str, data.ImageDataset]) -> RunLength:
    """The number of steps, which the save intervals of tensors must fit."""
    return RunLength(
        steps_per_epoch=math.ceil(len(datasets["train"]) / arguments.batch_size),
        epochs=arguments.epochs,
        evaluation_steps=math.ceil(len(datasets["valid"]) / arguments.batch_size),
    )


def load_datasets(
    listings: Sequence[data.Listing], image_size: int, cache_bytes: int
) -> dict[str, data.ImageDataset]:
    """A dataset per channel. They share the memory for decoded images; the first ones are served first."""
    datasets: dict[str, data.ImageDataset] = {}
    for listing in listings:
        datasets[listing.channel] = data.ImageDataset(listing, image_size, cache_bytes=cache_bytes)
        cache_bytes -= datasets[listing.channel].cache_bytes
    return datasets


def make_model(arguments: Namespace, class_count: int) -> nn.Module:
    """The architecture, with pretrained weights if the job has any, frozen as `trainable` says."""
    torch.manual_seed(arguments.seed)
    weights = pretrained_file(arguments.pretrained)
    model = build(arguments.arch, class_count, arguments.image_size)
    if weights:
        load_pretrained(model, arguments.arch, weights)
        logger.info("pretrained weights: %s", weights.name)
    else:
        logger.warning("no channel 'pretrained': %s starts from random weights", arguments.arch)
    if arguments.trainable == AUTO:
        arguments.trainable = "head" if weights else "all"
    elif arguments.trainable != "all" and not weights:
        logger.warning("trainable=%s leaves most of the random weights as they are", arguments.trainable)
    freeze(model, arguments.trainable)
    logger.info(
        "%s at %d pixels, trainable=%s: %s of %s parameters are trained",
        arguments.arch,
        arguments.image_size,
        arguments.trainable,
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,}",
        f"{sum(p.numel() for p in model.parameters()):,}",
    )
    return model


def train(job: Job) -> None:
    """Train to the last epoch, or until a Debugger rule asks to stop, and test the best model."""
    progress = resume(job)
    epochs = job.arguments.epochs
    try:
        for epoch in range(len(progress.history) + 1, epochs + 1):
            run_epoch(job, epoch, progress)
    except StopRequestedError:
        logger.warning("stopped by a rule after %d of %d epochs", len(progress.history), epochs)
        write_results(job, progress)  # of the epochs of an earlier attempt, if there was none since
    else:
        write_results(job, progress, test_best(job, progress))


def resume(job: Job) -> Progress:
    """The progress of an interrupted job from its checkpoint; restores its best model too."""
    folder = job.checkpoints
    progress = load_checkpoint(folder, job.identity, job.model, job.optimisation) if folder else Progress()
    if progress.history:
        logger.info("resumed after epoch %d from %s", len(progress.history), folder)
        save_model(progress.best_state, job.card, job.arguments.model_dir)
    return progress


def run_epoch(job: Job, epoch: int, progress: Progress) -> None:
    """Train and validate once; log the metrics and write all that a job that ends here should leave."""
    started = time.monotonic()
    torch.manual_seed(1000 * job.arguments.seed + epoch)
    # The draw of a loader without a generator of its own, so that dropout is that of earlier versions
    torch.empty((), dtype=torch.int64).random_()
    job.sampler.set_epoch(epoch)
    trained = train_one_epoch(
        job.model,
        job.criterion,
        job.loaders["train"],
        job.optimisation,
        job.device,
        hook=job.hook,
        timer=job.timer,
        stop_requested=job.stop.is_set,
    )
    training_seconds = time.monotonic() - started
    valid = evaluate_on(job, "valid", Phase.EVAL)
    row = {
        "epoch": epoch,
        "train_loss": trained.loss,
        "train_accuracy": trained.accuracy,
        "valid_loss": valid.loss,
        "valid_accuracy": valid.accuracy,
        "seconds": time.monotonic() - started,
        "images_per_second": trained.images / training_seconds,
    }
    logger.info(
        "epoch=%d train_loss=%.4f train_accuracy=%.4f valid_loss=%.4f valid_accuracy=%.4f seconds=%.1f "
        "images_per_second=%.0f",
        *row.values(),
    )
    progress.add(row, job.model)
    if progress.best_epoch == epoch:
        save_model(progress.best_state, job.card, job.arguments.model_dir)
    if job.checkpoints:
        save_checkpoint(job.checkpoints, job.identity, job.model, job.optimisation, progress)
    write_results(job, progress)


def evaluate_on(job: Job, channel: str, phase: Phase) -> Evaluation:
    """The current model's predictions on a channel."""
    loader = job.loaders[channel]
    return evaluate(job.model, job.criterion, loader, job.device, hook=job.hook, timer=job.timer, phase=phase)


def test_best(job: Job, progress: Progress) -> dict[str, Any]:
    """Evaluate the best model on the channel `test` and log the job's final line of metrics."""
    job.model.load_state_dict(progress.best_state)
    result = evaluate_on(job, "test", Phase.TEST)
    card = replace(job.card, energies=result.energy_quantiles())
    save_model(progress.best_state, card, job.arguments.model_dir)
    best = progress.history[progress.best_epoch - 1]
    final = {
        "best_epoch": progress.best_epoch,
        "valid_loss": best["valid_loss"],
        "valid_accuracy": best["valid_accuracy"],
        "test_loss": result.loss,
        "test_accuracy": result.accuracy,
        "test_images": len(result.labels),
    }
    logger.info(
        "final best_epoch=%d valid_loss=%.4f valid_accuracy=%.4f test_loss=%.4f test_accuracy=%.4f "
        "test_images=%d",
        *final.values(),
    )
    return final | {"confusion": result.confusion(len(job.card.classes)).tolist()}


def write_results(job: Job, progress: Progress, final: dict[str, Any] | None = None) -> None:
    """Write history.csv and metrics.json, whose `final` is null before the test."""
    folder: Path = job.arguments.output_data_dir
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "hyperparameters": hyperparameters(job.arguments),
        "classes": job.card.classes,
        "images": dict(job.image_counts),
        "history": progress.history,
        "final": final,
    }
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2).encode())
    table = io.StringIO()
    if progress.history:
        writer = csv.DictWriter(table, fieldnames=list(progress.history[0]))
        writer.writeheader()
        writer.writerows(progress.history)
    write_atomically(folder / "history.csv", table.getvalue().encode())
