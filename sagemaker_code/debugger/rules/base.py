"""What all debugger rules share: parameters, access to a step's tensors, and the outcome in words."""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from smdebug.core.modes import ModeKeys
from smdebug.exceptions import TensorUnavailableForStep
from smdebug.rules.rule import Rule

Array = npt.NDArray[Any]

NOT_PARAMETERS = {"rule_to_invoke", "base_trial", "other_trials", "action_json", "training_job_name_prefix"}
"""Members of RuleParameters that address the service, not the rule."""


class UnknownRuleError(ValueError):
    """A rule configuration invokes a rule that does not exist; the text names it."""


class RuleParameterError(ValueError):
    """A rule parameter is unknown or its value is of the wrong kind; the text names all three."""


@dataclass(frozen=True)
class Finding:
    """What a rule found: where, in one sentence with the numbers, and what to try."""

    step: int
    sentence: str
    advice: str


@dataclass(frozen=True)
class Parameter:
    """One parameter of a rule: how its string is read, and its default."""

    read: Callable[[str], Any]
    default: Any


def boolean(text: str) -> bool:
    """``True`` and ``False`` in any case; raises ValueError otherwise."""
    if text.strip().lower() in ("true", "1"):
        return True
    if text.strip().lower() in ("false", "0"):
        return False
    raise ValueError(text)


def positive(text: str) -> float:
    """A number above zero."""
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def count(text: str) -> int:
    """A whole number above zero."""
    value = float(text)
    if value < 1 or value != int(value):
        raise ValueError(text)
    return int(value)


def names(text: str) -> list[str]:
    """A list of names or patterns, separated by commas."""
    found = [one.strip() for one in text.strip("[] ").split(",")]
    return [one.strip("'\"") for one in found if one.strip("'\"")]


def patterns(text: str) -> list[str]:
    """As ``names``, each a regular expression; raises ValueError for one that is not."""
    found = names(text)
    for one in found:
        try:
            re.compile(one)
        except re.error as error:
            raise ValueError(f"{one}: {error}") from error
    return found


class EmptyTrial:
    """Stands for the trial of a job that has saved nothing yet."""

    def __init__(self) -> None:
        self.logger = logging.getLogger(__name__)
        self.global_step_to_tensors_map: dict[int, set[str]] = {}


class TensorReader:
    """Tensors of one trial, each read from storage once per step however many rules ask for it."""

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.unreadable: dict[tuple[str, int], str] = {}
        self._step: int | None = None
        self._values: dict[str, Array | None] = {}

    def names(self, step: int) -> set[str]:
        """Names of the tensors saved at a global step."""
        found: set[str] = self.trial.global_step_to_tensors_map.get(step, set())
        return found

    def all_names(self) -> set[str]:
        """Names of all tensors saved so far."""
        return {name for saved in self.trial.global_step_to_tensors_map.values() for name in saved}

    def in_collection(self, collection: str, step: int) -> list[str]:
        """Tensors of a collection at a step; none if the run has no such collection."""
        known = self.trial.collections()
        if collection not in known:
            return []
        members = set(known[collection].tensor_names)
        include = list(known[collection].include_regex or [])
        return sorted(one for one in self.names(step) if one in members or matches(one, include))

    def mode(self, step: int) -> str:
        """``TRAIN``, ``EVAL``, ``PREDICT`` or ``GLOBAL``."""
        mode = self.trial.mode(step)
        return str(mode.name) if isinstance(mode, ModeKeys) else "GLOBAL"

    def mode_step(self, step: int) -> int:
        """Number of a global step among those of its mode."""
        return int(self.trial.mode_step(step))

    def value(self, name: str, step: int) -> Array | None:
        """A tensor's value at a step, or None if it was not saved there or cannot be read."""
        if step != self._step:
            self._step, self._values = step, {}
        if name not in self._values:
            self._values[name] = self._read(name, step)
        return self._values[name]

    def _read(self, name: str, step: int) -> Array | None:
        if name not in self.names(step):
            return None
        try:
            return np.asarray(self.trial.tensor(name).value(step))
        except TensorUnavailableForStep as error:
            if not error.has_reductions:
                self.unreadable[name, step] = str(error)
            return None
        except Exception as error:  # noqa: BLE001 - smdebug raises whatever a half-written file makes it raise
            self.unreadable[name, step] = f"{type(error).__name__}: {error}"
            return None

    def mean_absolute(self, name: str, step: int) -> float | None:
        """Mean of a tensor's absolute values, of the tensor itself or of a saved reduction; None without
        both.
        """
        value = self.value(name, step)
        if value is not None:
            return float(np.abs(value).mean()) if value.size else None
        return self._reduction(name, step, "mean", absolute=True)

    def variance(self, name: str, step: int) -> float | None:
        """Variance of a tensor's values, of the tensor itself or of a saved reduction; None without both."""
        value = self.value(name, step)
        if value is not None:
            return float(np.var(value)) if value.size else None
        return self._reduction(name, step, "variance", absolute=False)

    def _reduction(self, name: str, step: int, reduction: str, *, absolute: bool) -> float | None:
        if name not in self.names(step) or (name, step) in self.unreadable:
            return None
        try:
            return float(self.trial.tensor(name).reduction_value(step, reduction, abs=absolute))
        except Exception as error:  # noqa: BLE001 - as in _read
            self.unreadable[name, step] = f"{type(error).__name__}: {error}"
            return None


def matches(name: str, regexes: list[str]) -> bool:
    """Whether one of the patterns is found in a tensor's name (smdebug.core.utils.match_inc: anywhere)."""
    return any(re.search(one, name) for one in regexes)


class DebuggerRule(Rule):  # type: ignore[misc]
    """A built-in rule. Subclasses give PARAMETERS, WANTS and ``judge``.

    ``judge`` looks at one saved step and returns a Finding when the rule's condition is met. It counts in
    ``judged`` the judgements it was able to make, and leaves in ``closest`` how near the condition came.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {}
    WANTS: ClassVar[str] = ""
    """What the run must save for the rule, for the outcome of a rule that saw nothing."""
    NEEDED: ClassVar[int] = 2
    """Judgements below which the rule has not seen enough to say that nothing is wrong."""

    def __init__(
        self, base_trial: Any, parameters: Mapping[str, str] | None = None, reader: TensorReader | None = None
    ) -> None:
        super().__init__(base_trial, action_str="")
        self.parameters = self.read_parameters(parameters or {})
        self.reader = reader or TensorReader(base_trial)
        self.judged = 0
        self.closest = ""
        self.finding: Finding | None = None

    @classmethod
    def read_parameters(cls, given: Mapping[str, str]) -> dict[str, Any]:
        """Defaults overlaid with the given strings. Raises RuleParameterError."""
        values = {name: parameter.default for name, parameter in cls.PARAMETERS.items()}
        for name, text in given.items():
            if name in NOT_PARAMETERS:
                continue
            if name not in cls.PARAMETERS:
                known = ", ".join(cls.PARAMETERS) or "none"
                raise RuleParameterError(f"{cls.__name__} has no parameter {name!r}; it takes {known}")
            try:
                values[name] = cls.PARAMETERS[name].read(text)
            except ValueError as error:
                default = cls.PARAMETERS[name].default
                raise RuleParameterError(
                    f"{cls.__name__}: {name} cannot be {text!r}; the default is {default!r}"
                ) from error
        return values

    def invoke_at_step(self, step: int) -> bool:
        """smdebug's entry: whether the condition is met at a global step."""
        self.finding = self.judge(step)
        return self.finding is not None

    @abstractmethod
    def judge(self, step: int) -> Finding | None:
        """Look at one saved step, in order."""

    def finish(self) -> Finding | None:
        """Judge what was still open when training ended."""
        return None

    def idle(self, seconds: float) -> Finding | None:  # noqa: ARG002 - for rules that watch the clock
        """Called while no new step comes, with the seconds since the last."""
        return None

    def enough(self) -> bool:
        """Whether a rule that found nothing may say so."""
        return self.judged >= self.NEEDED

    def quiet(self) -> str:
        """What the rule looked at without finding anything."""
        times = "once" if self.judged == 1 else f"{self.judged} times"
        lost = len(self.reader.unreadable)
        damaged = f"{lost} tensors could not be read and were left out." if lost else ""
        return " ".join(f"Judged {times}, the condition was never met. {self.closest} {damaged}".split())

    def shortage(self) -> str:
        """Why the rule has nothing to say."""
        saved = sorted(self.reader.all_names())
        shown = ", ".join(saved[:6]) + (f" and {len(saved) - 6} more" if len(saved) > 6 else "")
        if self.reader.unreadable:
            (name, step), reason = next(iter(self.reader.unreadable.items()))
            return (
                f"{len(self.reader.unreadable)} tensors could not be read, the first {name} at step "
                f"{step} ({reason})."
            )
        if self.judged:
            return (
                f"It could judge {self.judged} saved step and needs {self.NEEDED}: the save_interval is "
                "too long for this run."
            )
        return f"It needs {self.WANTS}. The run saved: {shown or 'no tensor'}."

    def selected(self, step: int, *, default_all: bool = False) -> list[str]:
        """Tensors at ``step`` that ``collection_names`` or ``tensor_regex`` name; else all or none."""
        collections, regexes = self.parameters.get("collection_names"), self.parameters.get("tensor_regex")
        if not collections and not regexes:
            return sorted(self.reader.names(step)) if default_all else []
        found = {one for one in self.reader.names(step) if regexes and matches(one, regexes)}
        for collection in collections or []:
            found.update(self.reader.in_collection(collection, step))
        return sorted(found)


def number(value: float) -> str:
    """A number in a sentence: four significant digits."""
    return f"{value:.4g}"
