"""Train an image classifier in a SageMaker training container.

Reads the channels `train`, `valid`, `test` and, if there is one, `pretrained`. Prints one line of metrics per epoch,
from which SageMaker takes the tuning objective. Keeps the model of the best epoch.
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
from data import LoaderOptions, PictureDataset, evaluation_loader, list_pictures, training_loader
from engine import Evaluation, Optimisation, StopRequestedError, evaluate, train_one_epoch
from errors import InputValueError
from files import write_atomically
from hook import Phase, TensorHook, debugger_configuration, open_hook
from model import build, freeze, load_pretrained
from torch import nn

logger = logging.getLogger("train")

WARM_UP = 0.1
"""Part of all steps in which the learning rate rises to its peak; it then falls to zero along a cosine."""


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

    job = prepare(arguments, device, stop)
    progress = resume(job)
    try:
        for epoch in range(len(progress.history) + 1, arguments.epochs + 1):
            run_epoch(job, epoch, progress)
    except StopRequestedError:
        logger.warning("stopped by SIGTERM after %d of %d epochs", len(progress.history), arguments.epochs)
        write_results(job, progress)
    else:
        write_results(job, progress, test_best(job, progress))


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


def prepare(arguments: Namespace, device: torch.device, stop: threading.Event) -> Job:
    """Load the data and build everything that trains on it; whatever is wrong with the input is found here."""
    train = list_pictures("train", arguments.train)
    listings = [
        train,
        *(list_pictures(name, getattr(arguments, name), train.classes) for name in ("valid", "test")),
    ]
    model = make_model(arguments, len(train.classes)).to(device, memory_format=torch.channels_last)
    cache_bytes = arguments.cache_mb * 2**20
    datasets: dict[str, PictureDataset] = {}
    for listing in listings:
        dataset = PictureDataset(listing, arguments.image_size, cache_bytes=cache_bytes)
        cache_bytes -= dataset.cache_bytes
        datasets[listing.channel] = dataset
    criterion = nn.CrossEntropyLoss(label_smoothing=arguments.label_smoothing)
    hook = open_hook(debugger_configuration(base_dir()), model, criterion)
    steps = math.ceil(len(datasets["train"]) / arguments.batch_size) * arguments.epochs
    return Job(
        arguments=arguments,
        device=device,
        card=ModelCard(arguments.arch, train.classes, arguments.image_size),
        datasets=datasets,
        loading=LoaderOptions(arguments.batch_size, arguments.num_workers, pin_memory=device.type == "cuda"),
        model=model,
        criterion=criterion,
        hook=hook,
        optimisation=make_optimisation(
            arguments, model, steps, mixed_precision=_mixed_precision(device, hook)
        ),
        stop=stop,
    )


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
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    logger.info(
        "%s, trainable=%s: %s of %s parameters are trained",
        arguments.arch, arguments.trainable, f"{trained:,}", f"{total:,}",
    )  # fmt: skip
    return model


def make_optimisation(
    arguments: Namespace, model: nn.Module, steps: int, *, mixed_precision: bool
) -> Optimisation:
    """SGD with Nesterov momentum; the learning rate warms up, then decays to zero over `steps`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": arguments.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=arguments.lr,
        momentum=arguments.momentum,
        nesterov=arguments.momentum > 0,
    )
    warm_up = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    return Optimisation(
        optimizer,
        torch.optim.lr_scheduler.LambdaLR(optimizer, factor),
        torch.amp.GradScaler(enabled=mixed_precision),
    )


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
    return evaluate(job.model, job.criterion, loader, job.device, hook=job.hook, phase=phase)


def test_best(job: Job, progress: Progress) -> Evaluation:
    """Evaluate the kept model on the channel `test` and print the job's final line of metrics."""
    job.model.load_state_dict(progress.best_state)
    result = evaluate_on(job, "test", Phase.TEST)
    best = progress.history[progress.best_epoch - 1]
    logger.info(
        "final best_epoch=%d valid_loss=%.4f valid_accuracy=%.4f test_loss=%.4f test_accuracy=%.4f test_images=%d",
        progress.best_epoch,
        best["valid_loss"],
        best["valid_accuracy"],
        result.loss,
        result.accuracy,
        len(result.labels),
    )
    return result


def write_results(job: Job, progress: Progress, test: Evaluation | None = None) -> None:
    """Write metrics.json and history.csv; `final` is null in the former if the job was stopped before the test."""
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


def _mixed_precision(device: torch.device, hook: TensorHook | None) -> bool:
    """On a GPU, unless gradients are saved: those of mixed precision are multiplied by the loss scale."""
    return device.type == "cuda" and hook is None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU threads, as there is no GPU"


if __name__ == "__main__":
    try:
        main()
    except InputValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
