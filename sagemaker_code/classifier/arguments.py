"""The command line of train.py: hyperparameters and the container's folders, parsed and checked."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from debugger import monitor
from debugger.configurations import (
    NO_RULES,
    RuleConfigurationsError,
    check_rule_names,
    rules_from_hyperparameter,
)

from classifier.errors import DatasetValueError, HyperparameterValueError

AUTO = "auto"
REQUIRED_CHANNELS = ("train", "valid", "test")
LEFT_OUT = "left_out"
"""Channel with a list of images that are not used, if there are any: `<split>/<class>/<file>` a line."""
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
TRAINABLE = (AUTO, "head", "last_block", "all")
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Limits:
    """Converts text to a finite number from `low` (above it, if `exclusive`) to `high`.

    A `whole` number may be written as 8.0, as tuners do. With `auto`, the text 'auto' becomes None.
    """

    low: float
    high: float
    exclusive: bool = False
    whole: bool = False
    auto: bool = False

    def __str__(self) -> str:
        start = "above {:,} and at most" if self.exclusive else "from {:,} to"
        return f"{start.format(self.low)} {self.high:,}"

    def __call__(self, text: str) -> float | None:
        """Raise ArgumentTypeError for anything else."""
        if self.auto and text == AUTO:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        outside = not self.low <= value <= self.high or (self.exclusive and value == self.low)
        if outside or (self.whole and value != int(value)):
            kind = "whole number" if self.whole else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind} {self}")
        return int(value) if self.whole else value


LIMITS = {
    "lr": Limits(0, 10, exclusive=True),
    "momentum": Limits(0, 0.999),
    "weight-decay": Limits(0, 1),
    "label-smoothing": Limits(0, 0.9),
    "batch-size": Limits(1, 4096, whole=True),
    "epochs": Limits(1, 1000, whole=True),
    "seed": Limits(0, 2**31 - 1, whole=True),
    "image-size": Limits(16, 1024, whole=True, auto=True),
    "num-workers": Limits(0, 64, whole=True, auto=True),
    "cache-mb": Limits(0, 1_000_000, whole=True),
    "debugger-sampling-ms": Limits(100, 60_000, whole=True),
    "debugger-profile-steps": Limits(0, 1000, whole=True),
}
"""The range of every numeric option, which --help shows too. This module does not import PyTorch."""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that the reason becomes the job's FailureReason."""

    def error(self, message: str) -> NoReturn:
        raise HyperparameterValueError(f"{message}; see the hyperparameters in train.py --help")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Hyperparameters and folders. Raises HyperparameterValueError or DatasetValueError."""
    arguments = _build_parser().parse_args(argv)
    for channel in REQUIRED_CHANNELS:
        _require_channel(channel, getattr(arguments, channel))
    return arguments


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="train.py",
        description="Train a torchvision classification architecture on folders of images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_optimisation(parser.add_argument_group("optimisation", "SGD with warm-up and cosine decay"))
    _add_model(parser.add_argument_group("model and input"))
    _add_debugger(parser.add_argument_group("debugger", "rules and profiler: what a run observes"))
    _add_container(parser.add_argument_group("container", "set by SageMaker; options for use elsewhere"))
    return parser


def _add_number(group: argparse._ArgumentGroup, name: str, default: float | str, text: str) -> None:
    limits = LIMITS[name]
    group.add_argument(f"--{name}", type=limits, default=default, help=f"{text}; {limits}")


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    _add_number(group, "lr", 0.05, "peak learning rate")
    _add_number(group, "momentum", 0.9, "Nesterov momentum; 0 for none")
    _add_number(group, "weight-decay", 1e-4, "of weights, not of biases or norms")
    _add_number(group, "label-smoothing", 0.0, "in training and evaluation")
    _add_number(group, "batch-size", 32, "images per step")
    _add_number(group, "epochs", 5, "passes over the training images")
    _add_number(group, "seed", 0, "of weights, order and augmentation")


def _add_model(group: argparse._ArgumentGroup) -> None:
    trained = "what is trained; auto: the head on pretrained weights, all without"
    group.add_argument("--arch", default="resnet50", help="a torchvision classification architecture")
    group.add_argument("--trainable", choices=TRAINABLE, default=AUTO, help=trained)
    _add_number(group, "image-size", AUTO, "side of the input in pixels; auto: by the images, 224 at most")
    _add_number(group, "num-workers", AUTO, "processes that decode; auto: 0 for images in memory, else CPUs")
    _add_number(group, "cache-mb", 2048, "memory for decoded images, MiB; 0: none")


def _add_debugger(group: argparse._ArgumentGroup) -> None:
    modes = "who evaluates rules: the platform, if it has a debugger (service); this job itself; nobody"
    rules = f"for in_job: NAME:parameter=value:...,NAME...; values percent-encoded; {NO_RULES} for none"
    add = group.add_argument
    add("--debugger", choices=monitor.MODES, default=monitor.SERVICE, help=modes)
    add("--debugger-rules", type=_rules, default=monitor.default_rules(), metavar="RULES", help=rules)
    _add_number(group, "debugger-sampling-ms", 500, "for in_job: milliseconds between two system samples")
    _add_number(group, "debugger-profile-steps", 0, "for in_job: training steps whose operators are profiled")


def _add_container(group: argparse._ArgumentGroup) -> None:
    base, add = base_dir(), group.add_argument
    for channel in (*REQUIRED_CHANNELS, "pretrained", LEFT_OUT):
        default = _path_of("SM_CHANNEL_" + channel.upper())
        add(f"--{channel.replace('_', '-')}", type=Path, default=default, help=f"channel '{channel}'")
    add("--model-dir", type=Path, default=_path_of("SM_MODEL_DIR", base / "model"), help="model")
    output = _path_of("SM_OUTPUT_DATA_DIR", base / "output/data")
    add("--output-data-dir", type=Path, default=output, help="metrics")
    add("--checkpoint-dir", type=Path, default=base / "checkpoints", help="checkpoints, if it exists")


def hyperparameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What determines the model, given the data: neither folders nor the use of memory and processes."""
    return {name: getattr(arguments, name) for name in HYPERPARAMETERS}


def is_watched(arguments: argparse.Namespace) -> bool:
    """Whether Debugger may watch the run that this job belongs to; its trials have no hook of their own."""
    return bool(arguments.debugger != monitor.OFF)


def base_dir() -> Path:
    """The container's /opt/ml, or the folder that AWS's training toolkit uses instead."""
    return Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))


def pretrained_file(channel: Path | None) -> Path | None:
    """The channel's one weights file; None without a channel. Raises DatasetValueError."""
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
        raise DatasetValueError(f"channel '{channel}': {folder} is not a folder: correct its S3 prefix")


def _rules(text: str) -> list[dict[str, Any]]:
    """Convert text to rule configurations; refuses unknown rules before the job does any work."""
    try:
        rules = rules_from_hyperparameter(text)
        check_rule_names(rules)
    except RuleConfigurationsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return rules


def _path_of(variable: str, default: Path | None = None) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else default
