"""Evaluates all rules of a job in one process beside the training, as tensors arrive.

It ends when every rule has ended, or when training has ended (an ended-file, smdebug's end marker, or no new
tensor within the idle timeout) and everything saved has been evaluated. It only requests ``stop_training``;
the caller stops the job.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from debugger.profiler.parameters import ProfilerParameterError
from debugger.profiler_watch import ProfilerRule
from debugger.rules import PROFILER_RULES, UnknownRuleError, make_rule
from debugger.rules.base import DebuggerRule, EmptyTrial, Finding, RuleParameterError, TensorReader
from debugger.statuses import STOP_TRAINING, Status, StatusBoard
from debugger.trial import ForeignTensorsError, IncompleteIndexError, TensorFolder

logger = logging.getLogger(__name__)

STOP_ACTION = re.compile(r"stop_?training", re.IGNORECASE)


@dataclass(frozen=True)
class EvaluatorSettings:
    """What an evaluation reads and how long it waits; times in seconds."""

    tensors: str
    ended_file: Path | None = None
    profiler: str | None = None
    report: str | None = None
    started: float | None = None
    poll: float = 1.0
    idle_timeout: float = 3600.0
    stop_rules: frozenset[str] = frozenset()
    parent: int | None = None


@dataclass
class _Running:
    """A rule with its configuration and status; its trial is an EmptyTrial until tensors exist."""

    status: Status
    name: str
    parameters: dict[str, str]
    rule: DebuggerRule
    stop_training: bool


@dataclass
class Evaluation:
    """Evaluates rule configurations in the form of CreateTrainingJob's DebugRuleConfigurations."""

    configurations: Sequence[Mapping[str, Any]]
    settings: EvaluatorSettings
    board: StatusBoard
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._folder = TensorFolder(self.settings.tensors, self.settings.started)
        self._rules: list[_Running] = []
        self._profiler: list[ProfilerRule] = []
        self._reader = TensorReader(EmptyTrial())
        self._seen: set[int] = set()
        self._last_new_step = time.monotonic()
        self._damage: str | None = None

    def run(self) -> None:
        """Evaluate until nothing is left to evaluate; every status is final then."""
        self._configure()
        while self._open_rules() or self._profiler:
            ended = self._has_ended()
            try:
                self._poll(ended=ended)
            except ForeignTensorsError as error:
                self._all(self.board.failed, str(error))
            for watched in self._profiler:
                watched.poll(ended=ended)
            if ended:
                break
            if not self._open_rules() and not self._profiler:
                break
            self.stop.wait(self.settings.poll)
            if self.stop.is_set() or self._orphaned():
                self._all(self.board.stopped, "the evaluation was stopped before training ended")
                break
        self._finish()

    def _configure(self) -> None:
        for configuration in self.configurations:
            parameters = {str(k): str(v) for k, v in (configuration.get("RuleParameters") or {}).items()}
            name = str(
                configuration.get("RuleConfigurationName") or parameters.get("rule_to_invoke") or "unnamed"
            )
            rule = parameters.get("rule_to_invoke", "")
            status = Status(name, rule or name)
            self.board.publish(status)
            if rule in PROFILER_RULES:
                self._configure_profiler(rule, parameters, status)
            else:
                self._configure_debugger(rule, parameters, status)

    def _configure_profiler(self, rule: str, parameters: dict[str, str], status: Status) -> None:
        if self.settings.profiler is None:
            self.board.insufficient_data(status, "no system samples were given to this evaluation")
            return
        try:
            folders = (self.settings.profiler, self.settings.report)
            self._profiler.append(ProfilerRule(rule, parameters, status, self.board, *folders))
        except ProfilerParameterError as error:
            self.board.failed(status, str(error))

    def _configure_debugger(self, rule: str, parameters: dict[str, str], status: Status) -> None:
        try:
            made = make_rule(rule, self._reader.trial, parameters, self._reader)
        except (UnknownRuleError, RuleParameterError) as error:
            self.board.failed(status, str(error))
            return
        stop_training = (
            bool(STOP_ACTION.search(parameters.get("action_json", "")))
            or parameters.get("stop_training_on_fire", "").lower() == "true"
            or status.name in self.settings.stop_rules
        )
        self._rules.append(_Running(status, rule, parameters, made, stop_training))

    def _open_rules(self) -> list[_Running]:
        return [one for one in self._rules if not one.status.ended()]

    def _has_ended(self) -> bool:
        if self.settings.ended_file is not None and self.settings.ended_file.exists():
            return True
        if self._folder.has_ended():
            return True
        return time.monotonic() - self._last_new_step > self.settings.idle_timeout

    def _orphaned(self) -> bool:
        return self.settings.parent is not None and os.getppid() != self.settings.parent

    def _poll(self, *, ended: bool) -> None:
        """Give each open rule the new steps, and the time since the last one."""
        if not self._open_rules():
            return
        try:
            steps = self._folder.refresh(ended=ended) if self._folder.open() else []
            self._damage = None
        except (IncompleteIndexError, OSError) as error:
            steps, self._damage = [], str(error)
        if self._folder.trial is not None and self._reader.trial is not self._folder.trial:
            self._reader = TensorReader(self._folder.trial)
            for running in self._open_rules():
                running.rule = make_rule(running.name, self._folder.trial, running.parameters, self._reader)
        for step in steps:
            if step not in self._seen:
                self._seen.add(step)
                self._last_new_step = time.monotonic()
                self._each(partial(_finding_at, step))
        if not ended:
            self._idle()

    def _idle(self) -> None:
        waited = time.monotonic() - self._last_new_step
        self._each(lambda rule: rule.idle(waited))

    def _each(self, judge: Callable[[DebuggerRule], Finding | None]) -> None:
        for running in self._open_rules():
            self._guard(running, judge)

    def _guard(self, running: _Running, judge: Callable[[DebuggerRule], Finding | None]) -> None:
        """Publish a finding. A rule that raises ends as Error, and the others continue."""
        try:
            finding = judge(running.rule)
        except Exception as error:
            logger.exception("rule %s failed", running.status.name)
            self.board.failed(running.status, f"the rule failed with {type(error).__name__}: {error}")
            return
        if finding is not None:
            running.status.action = STOP_TRAINING if running.stop_training else None
            self.board.found(running.status, finding.step, finding.sentence, finding.advice)

    def _finish(self) -> None:
        self._each(lambda rule: rule.finish())
        for running in self._open_rules():
            rule = running.rule
            if self._damage:
                self.board.failed(running.status, self._damage)
            elif self._folder.trial is None:
                self.board.insufficient_data(running.status, self._folder.description() + self._gave_up())
            elif rule.has_enough_data():
                self.board.no_issues(running.status, rule.no_issues() + self._gave_up())
            elif rule.reader.unreadable and not rule.judged:
                self.board.failed(running.status, rule.insufficient_data())
            else:
                self.board.insufficient_data(running.status, rule.insufficient_data() + self._gave_up())
        for watched in self._profiler:
            watched.finish()

    def _gave_up(self) -> str:
        waited = time.monotonic() - self._last_new_step
        return (
            f" No tensor arrived for {waited:.0f} s, and training did not end."
            if waited > self.settings.idle_timeout
            else ""
        )

    def _all(self, end: Callable[[Status, str], None], details: str) -> None:
        for running in self._open_rules():
            end(running.status, details)


def _finding_at(step: int, rule: DebuggerRule) -> Finding | None:
    return rule.finding if rule.invoke_at_step(step) else None
