"""The search space: SageMaker's parameter ranges, validated and converted to optuna's distributions and back.

Hyperparameters are text in SageMaker's API, and numbers only between this module and the optimiser.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from local_sagemaker.errors import ResourceLimitExceededError, ValidationError

MAX_TUNABLE = 30  # hyperparameters a tuning job may search, an AWS quota
_AUTO_LOG_RATIO = 10.0  # AWS's guide recommends linear scaling within one order of magnitude


_Number = TypeVar("_Number", int, float)


class OutsideRangeError(Exception):
    """A value of a parent tuning job that is not in the present range."""


class Scaling(StrEnum):
    AUTO = "Auto"
    LINEAR = "Linear"
    LOGARITHMIC = "Logarithmic"
    REVERSE_LOGARITHMIC = "ReverseLogarithmic"


@dataclass(frozen=True)
class Continuous:
    """Searched in `low..high`. ReverseLogarithmic is a logarithmic search of `1 - value`."""

    name: str
    low: float
    high: float
    scaling: Scaling

    combinations = math.inf

    def distribution(self) -> BaseDistribution:
        if self.scaling is Scaling.REVERSE_LOGARITHMIC:
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=self.scaling is Scaling.LOGARITHMIC)

    def to_text(self, internal: float) -> str:
        value = 1 - internal if self.scaling is Scaling.REVERSE_LOGARITHMIC else internal
        return repr(min(max(value, self.low), self.high))

    def from_text(self, text: str) -> float:
        """The optimiser's value. Raises OutsideRangeError."""
        value = _parsed(float, text, self.name)
        _check_inside(self.name, text, self.low <= value <= self.high)
        if self.scaling is not Scaling.REVERSE_LOGARITHMIC:
            return value
        return min(max(1 - value, 1 - self.high), 1 - self.low)


@dataclass(frozen=True)
class Integer:
    """Searched in `low..high`, both included."""

    name: str
    low: int
    high: int
    scaling: Scaling

    @property
    def combinations(self) -> float:
        return self.high - self.low + 1

    def distribution(self) -> BaseDistribution:
        return IntDistribution(self.low, self.high, log=self.scaling is Scaling.LOGARITHMIC)

    def to_text(self, internal: int) -> str:
        return str(internal)

    def from_text(self, text: str) -> int:
        """Raises OutsideRangeError."""
        value = _parsed(int, text, self.name)
        _check_inside(self.name, text, self.low <= value <= self.high)
        return value


@dataclass(frozen=True)
class Categorical:
    """One of `values`, which are passed on unchanged."""

    name: str
    values: tuple[str, ...]

    @property
    def combinations(self) -> float:
        return len(self.values)

    def distribution(self) -> BaseDistribution:
        return CategoricalDistribution(self.values)

    def to_text(self, internal: str) -> str:
        return internal

    def from_text(self, text: str) -> str:
        """Raises OutsideRangeError."""
        _check_inside(self.name, text, text in self.values)
        return text


Parameter: TypeAlias = Continuous | Integer | Categorical
Space: TypeAlias = tuple[Parameter, ...]


def combinations(space: Space) -> float:
    """The number of points in a space; infinite with a continuous parameter."""
    return math.prod(parameter.combinations for parameter in space)


def parse_space(ranges: Mapping[str, Any]) -> Space:
    """The space of a `ParameterRanges` structure. Raises ValidationError or ResourceLimitExceededError."""
    if ranges.get("AutoParameters"):
        raise ValidationError(
            "AutoParameters need Autotune, which the local SageMaker does not offer. "
            "Give ParameterRanges for every hyperparameter that is to be tuned."
        )
    space: Space = (
        *(_continuous(item) for item in ranges.get("ContinuousParameterRanges", [])),
        *(_integer(item) for item in ranges.get("IntegerParameterRanges", [])),
        *(_categorical(item) for item in ranges.get("CategoricalParameterRanges", [])),
    )
    if not space:
        raise ValidationError("ParameterRanges is empty: give at least one hyperparameter range to search.")
    if len(space) > MAX_TUNABLE:
        raise ResourceLimitExceededError(
            "The account-level service limit 'Number of hyperparameters that can be searched' is "
            f"{MAX_TUNABLE}, and the request has {len(space)}. Tune fewer hyperparameters."
        )
    _check_unique(space)
    return space


def _continuous(item: Mapping[str, Any]) -> Continuous:
    name, scaling = item["Name"], Scaling(item.get("ScalingType", Scaling.AUTO))
    low, high = _bound(float, item, "MinValue"), _bound(float, item, "MaxValue")
    _check_order(name, low, high)
    if scaling is Scaling.REVERSE_LOGARITHMIC and not 0 <= low < high < 1:
        raise ValidationError(
            f"Hyperparameter {name!r}: ReverseLogarithmic scaling needs a range within 0 <= x < 1.0, "
            f"not [{item['MinValue']}, {item['MaxValue']}]."
        )
    _check_logarithmic(name, scaling, low, item)
    return Continuous(name, low, high, _resolved(scaling, low, high))


def _integer(item: Mapping[str, Any]) -> Integer:
    name, scaling = item["Name"], Scaling(item.get("ScalingType", Scaling.AUTO))
    low, high = _bound(int, item, "MinValue"), _bound(int, item, "MaxValue")
    _check_order(name, low, high)
    if scaling is Scaling.REVERSE_LOGARITHMIC:
        raise ValidationError(
            f"Hyperparameter {name!r}: ReverseLogarithmic scaling is for continuous ranges only. "
            "Use Auto, Linear or Logarithmic."
        )
    _check_logarithmic(name, scaling, low, item)
    return Integer(name, low, high, _resolved(scaling, low, high))


def _categorical(item: Mapping[str, Any]) -> Categorical:
    repeated = [value for value, count in Counter(item["Values"]).items() if count > 1]
    if repeated:
        raise ValidationError(
            f"Hyperparameter {item['Name']!r}: the categorical values {repeated} are given more than once."
        )
    return Categorical(item["Name"], tuple(item["Values"]))


def _resolved(scaling: Scaling, low: float, high: float) -> Scaling:
    """Replace Auto. AWS does not publish its rule; this one follows the advice of its guide."""
    if scaling is not Scaling.AUTO:
        return scaling
    return Scaling.LOGARITHMIC if low > 0 and high / low > _AUTO_LOG_RATIO else Scaling.LINEAR


def _bound(kind: Callable[[str], _Number], item: Mapping[str, Any], key: str) -> _Number:
    try:
        value = kind(item[key])
    except ValueError as error:
        noun = "an integer" if kind is int else "a number"
        raise ValidationError(
            f"Hyperparameter {item['Name']!r}: {key} {item[key]!r} is not {noun}."
        ) from error
    if not math.isfinite(value):
        raise ValidationError(f"Hyperparameter {item['Name']!r}: {key} {item[key]!r} is not finite.")
    return value


def _check_order(name: str, low: float, high: float) -> None:
    if low >= high:
        raise ValidationError(
            f"Hyperparameter {name!r}: MinValue [{low}] must be less than MaxValue [{high}]. "
            "Put a hyperparameter with one value into StaticHyperParameters."
        )


def _check_logarithmic(name: str, scaling: Scaling, low: float, item: Mapping[str, Any]) -> None:
    if scaling is Scaling.LOGARITHMIC and low <= 0:
        raise ValidationError(
            f"Hyperparameter {name!r}: Logarithmic scaling needs values greater than 0, "
            f"not the range [{item['MinValue']}, {item['MaxValue']}]."
        )


def _check_unique(space: Sequence[Parameter]) -> None:
    counts = Counter(parameter.name for parameter in space)
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise ValidationError(
            f"The hyperparameters {repeated} have more than one range; give each one range."
        )


def _parsed(kind: Callable[[str], _Number], text: str, name: str) -> _Number:
    try:
        return kind(text)
    except ValueError as error:
        raise OutsideRangeError(f"{name}={text!r} is not a number of the kind that the range has") from error


def _check_inside(name: str, text: str, inside: bool) -> None:
    if not inside:
        raise OutsideRangeError(f"{name}={text!r} is outside the range")
