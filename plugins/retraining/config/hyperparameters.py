"""The hyperparameters that the training script takes, and the limits of each.

The script checks them again; knowing them here stops a wrong search space before a job is paid for. A test
compares both lists.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Value = int | float | str


@dataclass(frozen=True)
class Numeric:
    """A number from `low` to `high`, both included unless `exclusive_low`."""

    low: float
    high: float
    integer: bool = False
    exclusive_low: bool = False

    def problem(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            return "is not a number"
        if self.integer and not isinstance(value, int):
            return "is not an integer"
        too_low = value <= self.low if self.exclusive_low else value < self.low
        return f"is outside {self}" if too_low or value > self.high else None

    def __str__(self) -> str:
        return f"{'(' if self.exclusive_low else '['}{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def problem(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        return None if value in self.words else f"is not one of {', '.join(self.words)}"


Trainable = Literal["auto", "head", "last_block", "all"]
EPOCHS = Numeric(1, 1000, integer=True)
IMAGE_SIZE = Numeric(16, 1024, integer=True)
"""Side of the square input, in pixels."""

HYPERPARAMETERS: dict[str, Numeric | Choice] = {
    "lr": Numeric(0, 10, exclusive_low=True),
    "momentum": Numeric(0, 0.999),
    "weight-decay": Numeric(0, 1),
    "label-smoothing": Numeric(0, 0.9),
    "batch-size": Numeric(1, 4096, integer=True),
    "epochs": EPOCHS,
    "trainable": Choice(get_args(Trainable)),
    "image-size": IMAGE_SIZE,
    "seed": Numeric(0, 2**31 - 1, integer=True),
    "num-workers": Numeric(0, 64, integer=True),
    "cache-mb": Numeric(0, 1_000_000, integer=True),
}


def problem(name: str, value: Value) -> str | None:
    """What is wrong with a hyperparameter's name or value, as a sentence, or None."""
    limits = HYPERPARAMETERS.get(name)
    if limits is None:
        return f"the training script has no hyperparameter {name!r}{near_match(name, HYPERPARAMETERS)}"
    wrong = limits.problem(value)
    return f"{name}: {value!r} {wrong}" if wrong else None


def near_match(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` with the known name closest to `name`, or the list of all known names."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" (did you mean {matches[0]!r}?)" if matches else f" (known: {', '.join(names)})"
