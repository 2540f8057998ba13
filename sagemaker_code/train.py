"""Train an image classifier in a SageMaker training container.

Reads the channels `train`, `valid`, `test` and, if there is one, `pretrained`. Prints one line of metrics per
epoch, from which SageMaker takes the tuning objective. Keeps the model of the best epoch.
"""

import csv
import io
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arguments import AUTO, base_dir, hyperparameters, parse_arguments, pretrained_file
from artifact import ModelCard, save_model
from checkpoint import Progress, load_checkpoint, save_checkpoint
from data import (
    Listing,
    LoaderOptions,
    PictureDataset,
    evaluation_loader,
    list_pictures,
    normalise,
    suitable_size,
    training_loader,
)
from debugger import monitor
from debugger.hook_config import RunLength
from debugger.monitor import MonitorSettings, Watch
from debugger.steps import StepTimer
from engine import Evaluation, Optimisation, StopRequestedError, evaluate, train_one_epoch
from errors import InputValueError
from files import write_atomically
from hook import Phase, TensorHook, open_hook
from model import build, freeze, head_input_energy, load_pretrained, native_size
from torch import nn
from torch.utils.data import DataLoader, Subset

logger = logging.getLogger("train")

WARM_UP = 0.1
"""Part of all steps in which the learning rate rises to its peak; it then falls to zero along a cosine."""
MAX_GRADIENT_NORM = 2.0
"""Limit of the gradients' L2 norm: networks without batch normalisation diverge at large rates otherwise."""
HEAD_INPUT_NORM = 15.0
"""Best of 7, 10, 15 and 20 for learning rates of 0.01 to 0.1, on SqueezeNet's features of dogs."""
HEAD_INPUT_SAMPLE = 256
"""Training pictures on which the size of a head's inputs is measured."""


@dataclass(frozen=True)
class Job:
    """What stays the same while a job trains."""

    arguments: Namespace
    device: torch.device
    card: ModelCard
    datasets: Mapping[str, PictureDataset]
    loading: LoaderOptions
    model: nn.Module
    criterion: nn.Module
    hook: TensorHook | None
    optimisation: Optimisation
    timer: StepTimer
    stop: threading.Event

    @property
    def identity(self) -> dict[str, Any]:
        """What two jobs must have in common for one to go on from the other's checkpoint."""
        return {**hyperparameters(self.arguments), "classes": list(self.card.classes)}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, load the data, build the model, train and evaluate epoch by epoch, test, save."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    arguments = parse_arguments(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logger.info("training on %s with PyTorch %s", _device_name(device), torch.__version__)
    stop = watch_for_stop()
    make_reproducible()
    with monitor.beside(monitor_settings(arguments), on_stop=stop.set) as watch:
        job = prepare(arguments, device, stop, watch)
        train(job)


def train(job: Job) -> None:
    """Train to the last epoch, or to where the job is asked to stop, and write what came of it."""
    progress = resume(job)
    epochs = job.arguments.epochs
    try:
        for epoch in range(len(progress.history) + 1, epochs + 1):
            run_epoch(job, epoch, progress)
    except StopRequestedError:
        logger.warning("stopped on request after %d of %d epochs", len(progress.history), epochs)
        write_results(job, progress)
    else:
        write_results(job, progress, test_best(job, progress))


def monitor_settings(arguments: Namespace) -> MonitorSettings:
    """What Debugger does in this job, from the job's hyperparameters."""
    return MonitorSettings(
        mode=arguments.debugger,
        output_data=arguments.output_data_dir,
        rules=arguments.debugger_rules,
        base_dir=base_dir(),
        profile_steps=arguments.debugger_profile_steps,
        sampling_ms=arguments.debugger_sampling_ms,
    )


def watch_for_stop() -> threading.Event:
    """An event that SIGTERM sets, which SageMaker sends when a job is stopped or its spot instance goes."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


def make_reproducible() -> None:
    """Choose deterministic algorithms, so that a seed gives the same model on the same machine."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # cuBLAS is deterministic only with a fixed workspace
    torch.use_deterministic_algorithms(True, warn_only=True)


def prepare(arguments: Namespace, device: torch.device, stop: threading.Event, watch: Watch) -> Job:
    """Load the data and build what trains on it; whatever is wrong with the input is found here."""
    train = list_pictures("train", arguments.train)
    listings = [train] + [
        list_pictures(name, getattr(arguments, name), train.classes) for name in ("valid", "test")
    ]
    if arguments.image_size is None:
        arguments.image_size = max(suitable_size(train), native_size(arguments.arch))
    model = make_model(arguments, len(train.classes)).to(device)
    datasets = load_datasets(listings, arguments.image_size, arguments.cache_mb * 2**20)
    criterion = nn.CrossEntropyLoss(label_smoothing=arguments.label_smoothing)
    hook = open_hook(watch.hook_configuration(run_length(arguments, datasets)), model, criterion)
    return Job(
        arguments=arguments,
        device=device,
        card=ModelCard(arguments.arch, train.classes, arguments.image_size),
        datasets=datasets,
        loading=LoaderOptions(arguments.batch_size, arguments.num_workers, pin_memory=device.type == "cuda"),
        model=model,
        criterion=criterion,
        hook=hook,
        optimisation=make_optimisation(arguments, model, datasets["train"], device, hook),
        timer=watch.steps,
        stop=stop,
    )


def run_length(arguments: Namespace, datasets: Mapping[str, PictureDataset]) -> RunLength:
    """The steps of the run, which the intervals of saved tensors must fit."""
    return RunLength(
        steps_per_epoch=math.ceil(len(datasets["train"]) / arguments.batch_size),
        epochs=arguments.epochs,
        evaluation_steps=math.ceil(len(datasets["valid"]) / arguments.batch_size),
    )


def load_datasets(
    listings: Sequence[Listing], image_size: int, cache_bytes: int
) -> dict[str, PictureDataset]:
    """A data set per channel; they share the memory for decoded pictures, first come, first served."""
    datasets: dict[str, PictureDataset] = {}
    for listing in listings:
        datasets[listing.channel] = PictureDataset(listing, image_size, cache_bytes=cache_bytes)
        cache_bytes -= datasets[listing.channel].cache_bytes
    return datasets


def make_model(arguments: Namespace, class_count: int) -> nn.Module:
    """The architecture with pretrained weights if the job has them, and frozen as `trainable` says."""
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


def make_optimisation(
    arguments: Namespace,
    model: nn.Module,
    train: PictureDataset,
    device: torch.device,
    hook: TensorHook | None,
) -> Optimisation:
    """SGD with Nesterov momentum; the learning rate warms up, then falls to zero.

    Mixed precision is for GPUs, and not with a debugger: it would see gradients multiplied by the loss scale.
    """
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
        torch.amp.GradScaler(enabled=device.type == "cuda" and hook is None),
        max_gradient_norm=math.inf if arguments.trainable == "head" else MAX_GRADIENT_NORM,
    )


def parameter_groups(
    arguments: Namespace, model: nn.Module, train: PictureDataset, device: torch.device
) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and norms, which do not.

    A head alone on a fixed backbone is trained as if its inputs had the L2 norm HEAD_INPUT_NORM: the same
    learning rates then suit every backbone, whatever the scale of its features (normalised least mean
    squares, Widrow and Hoff). Inputs divided by c mean initial weights divided by c and a learning rate
    divided by c^2.
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


def resume(job: Job) -> Progress:
    """The progress of an interrupted job from its checkpoint, with its best model back in place."""
    folder = _checkpoint_dir(job)
    progress = load_checkpoint(folder, job.identity, job.model, job.optimisation) if folder else Progress()
    if progress.history:
        logger.info("resumed after epoch %d from %s", len(progress.history), folder)
        save_model(progress.best_state, job.card, job.arguments.model_dir)
    return progress


def run_epoch(job: Job, epoch: int, progress: Progress) -> None:
    """Train and validate once, print the metrics, keep the model if it is the best so far, checkpoint."""
    started = time.monotonic()
    seed = job.arguments.seed
    torch.manual_seed(1000 * seed + epoch)
    trained = train_one_epoch(
        job.model,
        job.criterion,
        training_loader(job.datasets["train"], job.loading, seed, epoch),
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
    folder = _checkpoint_dir(job)
    if folder:
        save_checkpoint(folder, job.identity, job.model, job.optimisation, progress)


def evaluate_on(job: Job, channel: str, phase: Phase) -> Evaluation:
    """The current model's answers on a channel."""
    loader = evaluation_loader(job.datasets[channel], job.loading)
    return evaluate(job.model, job.criterion, loader, job.device, hook=job.hook, timer=job.timer, phase=phase)


def test_best(job: Job, progress: Progress) -> Evaluation:
    """Evaluate the kept model on the channel `test` and print the job's final line of metrics."""
    job.model.load_state_dict(progress.best_state)
    result = evaluate_on(job, "test", Phase.TEST)
    best = progress.history[progress.best_epoch - 1]
    logger.info(
        "final best_epoch=%d valid_loss=%.4f valid_accuracy=%.4f test_loss=%.4f test_accuracy=%.4f "
        "test_images=%d",
        progress.best_epoch,
        best["valid_loss"],
        best["valid_accuracy"],
        result.loss,
        result.accuracy,
        len(result.labels),
    )
    return result


def write_results(job: Job, progress: Progress, test: Evaluation | None = None) -> None:
    """Write metrics.json, whose `final` is null if the job was stopped before the test, and history.csv."""
    folder: Path = job.arguments.output_data_dir
    folder.mkdir(parents=True, exist_ok=True)
    final = None
    if test:
        best = progress.history[progress.best_epoch - 1]
        final = {
            "best_epoch": progress.best_epoch,
            "valid_loss": best["valid_loss"],
            "valid_accuracy": best["valid_accuracy"],
            "test_loss": test.loss,
            "test_accuracy": test.accuracy,
            "test_images": len(test.labels),
            "confusion": test.confusion(len(job.card.classes)).tolist(),
        }
    metrics = {
        "hyperparameters": hyperparameters(job.arguments),
        "classes": job.card.classes,
        "images": {channel: len(dataset) for channel, dataset in job.datasets.items()},
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


def _checkpoint_dir(job: Job) -> Path | None:
    """The checkpoint folder; SageMaker makes it only for jobs that have a CheckpointConfig."""
    folder: Path = job.arguments.checkpoint_dir
    return folder if folder.is_dir() else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{torch.get_num_threads()} CPU threads, as there is no GPU"


if __name__ == "__main__":
    try:
        main()
    except InputValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
