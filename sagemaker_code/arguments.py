"""The hyperparameters of a training job and the folders of its container, parsed and checked."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from debugger import monitor
from debugger.configurations import RuleConfigurationsError, parse_rules
from errors import DatasetValueError, HyperparameterValueError

AUTO = "auto"
REQUIRED_CHANNELS = ("train", "valid", "test")
HYPERPARAMETERS = (
    "arch",
    "trainable",
    "image_size",
    "lr",
    "momentum",
    "weight_decay",
    "label_smoothing",
    "batch_size",
    "epochs",
    "seed",
)
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that the reason reaches the job's FailureReason."""

    def error(self, message: str) -> NoReturn:
        raise HyperparameterValueError(f"{message}; see the hyperparameters in train.py --help")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Hyperparameters and folders; raises HyperparameterValueError or DatasetValueError."""
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    for channel in REQUIRED_CHANNELS:
        _require_channel(channel, getattr(arguments, channel))
    return arguments


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="train.py",
        description="Train a torchvision classification architecture on folders of pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_optimisation(parser.add_argument_group("optimisation", "SGD with warm-up and cosine decay"))
    _add_model(parser.add_argument_group("model and input"))
    _add_debugger(
        parser.add_argument_group("debugger", "rules and profiler; what a run observes, not what it trains")
    )
    _add_container(
        parser.add_argument_group("container", "set by SageMaker; as options for use outside of it")
    )
    return parser


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--lr", type=number(0, 10, exclusive=True), default=0.05, help="peak learning rate")
    group.add_argument("--momentum", type=number(0, 0.999), default=0.9, help="Nesterov momentum; 0 for none")
    group.add_argument(
        "--weight-decay", type=number(0, 1), default=1e-4, help="of weights, not of biases or norms"
    )
    group.add_argument(
        "--label-smoothing", type=number(0, 0.9), default=0.0, help="in training and evaluation"
    )
    group.add_argument("--batch-size", type=integer(1, 4096), default=32, help="pictures per step")
    group.add_argument("--epochs", type=integer(1, 1000), default=5, help="passes over the training pictures")
    group.add_argument(
        "--seed", type=integer(0, 2**31 - 1), default=0, help="of weights, order and augmentation"
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--arch", default="resnet50", help="a torchvision classification architecture")
    group.add_argument(
        "--trainable",
        choices=(AUTO, "head", "last_block", "all"),
        default=AUTO,
        help="what is trained; auto: the head on pretrained weights, all without",
    )
    group.add_argument(
        "--image-size",
        type=_auto_or(integer(16, 1024)),
        default=None,
        help="side of the square input in pixels; auto: by the size of the training pictures, 224 at most",
    )
    group.add_argument(
        "--num-workers",
        type=_auto_or(integer(0, 64)),
        default=None,
        help="processes that decode pictures; auto: none for pictures in memory, else one per CPU",
    )
    group.add_argument(
        "--cache-mb",
        type=integer(0, 1_000_000),
        default=2048,
        help="memory for decoded pictures, MiB; 0: none",
    )


def _add_debugger(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--debugger",
        choices=monitor.MODES,
        default=monitor.SERVICE,
        help="who evaluates rules: the platform, if it has a debugger (service); this job itself; nobody",
    )
    group.add_argument(
        "--debugger-rules",
        type=_rules,
        default=monitor.default_rules(),
        metavar="JSON",
        help="for in_job: a list of DebugRuleConfiguration objects",
    )
    group.add_argument(
        "--debugger-sampling-ms",
        type=integer(100, 60_000),
        default=500,
        help="for in_job: milliseconds between two samples of the system",
    )
    group.add_argument(
        "--debugger-profile-steps",
        type=integer(0, 1000),
        default=0,
        help="for in_job: training steps whose operators are profiled",
    )


def _add_container(group: argparse._ArgumentGroup) -> None:
    base = base_dir()
    for channel in (*REQUIRED_CHANNELS, "pretrained"):
        group.add_argument(
            f"--{channel}",
            type=Path,
            default=_path_of("SM_CHANNEL_" + channel.upper()),
            help=f"channel '{channel}'",
        )
    group.add_argument(
        "--model-dir", type=Path, default=_path_of("SM_MODEL_DIR", base / "model"), help="model"
    )
    group.add_argument(
        "--output-data-dir",
        type=Path,
        default=_path_of("SM_OUTPUT_DATA_DIR", base / "output/data"),
        help="metrics",
    )
    group.add_argument(
        "--checkpoint-dir", type=Path, default=base / "checkpoints", help="checkpoints, if the folder exists"
    )


def hyperparameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What determines the model, given the data; neither folders nor the use of memory and processes."""
    return {name: getattr(arguments, name) for name in HYPERPARAMETERS}


def base_dir() -> Path:
    """The container's /opt/ml, or what takes its place for AWS's training toolkit."""
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def pretrained_file(channel: Path | None) -> Path | None:
    """The one weights file of the channel 'pretrained'; None without the channel."""
    if channel is None:
        return None
    if channel.is_file():
        return channel
    files = sorted(file for file in channel.rglob("*") if file.is_file() and not file.name.startswith("."))
    weights = [file for file in files if file.suffix in WEIGHTS_SUFFIXES]
    if len(weights) != 1:
        found = ", ".join(file.name for file in files) or "nothing"
        raise DatasetValueError(
            f"channel 'pretrained' holds {found} but must hold one {', '.join(WEIGHTS_SUFFIXES)} file: "
            "correct its S3 prefix, or leave the channel out to train from random weights"
        )
    return weights[0]


def _require_channel(channel: str, folder: Path | None) -> None:
    if folder is None:
        raise DatasetValueError(
            f"channel '{channel}' is missing: give the job's InputDataConfig a channel of this name"
        )
    if not folder.is_dir():
        raise DatasetValueError(f"channel '{channel}': {folder} is no folder: correct its S3 prefix")


def _rules(text: str) -> list[dict[str, Any]]:
    """A converter for rule configurations."""
    try:
        return parse_rules(text, repr(text))
    except RuleConfigurationsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _path_of(variable: str, default: Path | None = None) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else default


def number(low: float, high: float, *, exclusive: bool = False) -> Callable[[str], float]:
    """A converter for a finite number from `low` (not itself if `exclusive`) to `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (exclusive and value == low):
            bounds = f"above {low:g} and at most {high:g}" if exclusive else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number {bounds}")
        return value

    return convert


def integer(low: int, high: int) -> Callable[[str], int]:
    """A converter for a whole number from `low` to `high`; 8.0 counts, as tuners may write it so."""

    def convert(text: str) -> int:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or value != int(value):
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low:,} to {high:,}")
        return int(value)

    return convert


def _auto_or(convert: Callable[[str], int]) -> Callable[[str], int | None]:
    """A converter that lets 'auto' stand for None."""

    def convert_or_none(text: str) -> int | None:
        return None if text == AUTO else convert(text)

    return convert_or_none
