"""The base of all debugger rules: parameters, access to a step's tensors, and explanations of the outcome."""

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
"""Members of RuleParameters for the service rather than for the rule."""


class RuleParameterError(ValueError):
    """A rule parameter is unknown or its value is invalid; the message names rule, parameter and value."""


@dataclass(frozen=True)
class Finding:
    """An issue: at which step, a sentence with the numbers, and what to try."""

    step: int
    sentence: str
    advice: str


@dataclass(frozen=True)
class Parameter:
    """A parameter of a rule: the function that converts its text, and its default."""

    read: Callable[[str], Any]
    default: Any


def boolean(text: str) -> bool:
    """``True`` or ``False`` in any case, 1 or 0. Raises ValueError for anything else."""
    if text.strip().lower() in ("true", "1"):
        return True
    if text.strip().lower() in ("false", "0"):
        return False
    raise ValueError(text)


def positive(text: str) -> float:
    """A number above zero. Raises ValueError for anything else."""
    value = float(text)
    if not value > 0:
        raise ValueError(text)
    return value


def count(text: str) -> int:
    """A whole number above zero. Raises ValueError for anything else."""
    value = float(text)
    if value < 1 or value != int(value):
        raise ValueError(text)
    return int(value)


def names(text: str) -> list[str]:
    """Names or patterns separated by commas, with or without brackets and quotes."""
    found = [one.strip() for one in text.strip("[] ").split(",")]
    return [one.strip("'\"") for one in found if one.strip("'\"")]


def patterns(text: str) -> list[str]:
    """Like ``names``, for regular expressions. Raises ValueError for an invalid one."""
    found = names(text)
    for one in found:
        try:
            re.compile(one)
        except re.error as error:
            raise ValueError(f"{one}: {error}") from error
    return found


class EmptyTrial:
    """The trial of a job that has saved nothing yet."""

    def __init__(self) -> None:
        self.logger = logging.getLogger(__name__)
        self.global_step_to_tensors_map: dict[int, set[str]] = {}


class TensorReader:
    """The tensors of one trial; each is read from storage once per step, however many rules use it."""

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
        """Names of a collection's tensors at a step; none if the run has no such collection."""
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
        """The number of a global step among the steps of its mode."""
        return int(self.trial.mode_step(step))

    def value(self, name: str, step: int) -> Array | None:
        """A tensor's value at a step; None if it was not saved there or cannot be read."""
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
        except Exception as error:  # noqa: BLE001 - an incomplete file makes smdebug raise anything
            self.unreadable[name, step] = f"{type(error).__name__}: {error}"
            return None

    def mean_absolute(self, name: str, step: int) -> float | None:
        """Mean of a tensor's absolute values, from the tensor or a saved reduction; None without either."""
        value = self.value(name, step)
        if value is not None:
            return float(np.abs(value).mean()) if value.size else None
        return self._reduction(name, step, "mean", absolute=True)

    def variance(self, name: str, step: int) -> float | None:
        """Variance of a tensor's values, from the tensor or a saved reduction; None without either."""
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
    """Whether a pattern matches anywhere in a tensor's name, like smdebug.core.utils.match_inc."""
    return any(re.search(one, name) for one in regexes)


class DebuggerRule(Rule):  # type: ignore[misc]
    """A built-in rule. Subclasses define PARAMETERS, WANTS and ``judge``.

    ``judge`` evaluates one saved step and returns a Finding if the rule's condition is met. It counts its
    evaluations in ``judged`` and describes in ``closest`` how close the condition came to being met.
    """

    PARAMETERS: ClassVar[dict[str, Parameter]] = {}
    WANTS: ClassVar[str] = ""
    """What the run must save for the rule, to explain insufficient data."""
    NEEDED: ClassVar[int] = 2
    """Evaluations that the rule needs before it may report that there is no issue."""

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
                raise RuleParameterError(f"{cls.__name__} has no parameter {name!r}; it has {known}")
            try:
                values[name] = cls.PARAMETERS[name].read(text)
            except ValueError as error:
                default = cls.PARAMETERS[name].default
                raise RuleParameterError(
                    f"{cls.__name__}: {name} cannot be {text!r}; the default is {default!r}"
                ) from error
        return values

    def invoke_at_step(self, step: int) -> bool:
        """smdebug's entry point: whether the condition is met at a global step."""
        self.finding = self.judge(step)
        return self.finding is not None

    @abstractmethod
    def judge(self, step: int) -> Finding | None:
        """Evaluate one saved step; steps arrive in order."""

    def finish(self) -> Finding | None:
        """Evaluate what is still pending when training has ended."""
        return None

    def idle(self, seconds: float) -> Finding | None:  # noqa: ARG002 - for rules on elapsed time
        """Called while no new step arrives, with the seconds since the last one."""
        return None

    def has_enough_data(self) -> bool:
        """Whether a rule without a finding may report that there is no issue."""
        return self.judged >= self.NEEDED

    def no_issues(self) -> str:
        """Explains a NoIssuesFound: how often the rule was evaluated and how close its condition came."""
        times = "once" if self.judged == 1 else f"{self.judged} times"
        lost = len(self.reader.unreadable)
        damaged = f"{lost} tensors could not be read and were skipped." if lost else ""
        return " ".join(f"Evaluated {times}, the condition was never met. {self.closest} {damaged}".split())

    def insufficient_data(self) -> str:
        """Explains an InsufficientData: what the rule needs and what the run saved."""
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
                f"It could evaluate {self.judged} saved step and needs {self.NEEDED}: the save_interval is "
                "too long for this run."
            )
        return f"It needs {self.WANTS}. The run saved: {shown or 'no tensor'}."

    def selected(self, step: int, *, default_all: bool = False) -> list[str]:
        """Tensors at ``step`` that ``collection_names`` or ``tensor_regex`` select; else all or none."""
        collections, regexes = self.parameters.get("collection_names"), self.parameters.get("tensor_regex")
        if not collections and not regexes:
            return sorted(self.reader.names(step)) if default_all else []
        found = {one for one in self.reader.names(step) if regexes and matches(one, regexes)}
        for collection in collections or []:
            found.update(self.reader.in_collection(collection, step))
        return sorted(found)


def number(value: float) -> str:
    """A number for a sentence, with four significant digits."""
    return f"{value:.4g}"
