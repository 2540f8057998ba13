"""Followers of jobs: stages, script lines, trials, and what Debugger rules find."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from retraining.aws.clients import Aws
from retraining.jobs.debugger_rules import IN_PROGRESS, RuleState, rule_states
from retraining.jobs.following import Follower, Line
from retraining.jobs.kinds import PROCESSING, RUNNING, TRAINING, TUNING, JobKind, trial_of
from retraining.jobs.logs import PROCESSING_JOBS, TRAINING_JOBS, LogTail
from retraining.jobs.noise import without_noise
from retraining.jobs.polling import LAST_LINES_SECONDS, job_pause
from retraining.runs.results import Trial

_LONGEST_QUIET = timedelta(seconds=55)  # with a poll's pause, a minute
_LONG_AGO = "2000-01-01T00:00:00+00:00"


class JobFollower(Follower):
    """Follows the job `arguments["name"]` of one kind."""

    kind: ClassVar[JobKind]
    _status = "InProgress"

    @property
    def name(self) -> str:
        return str(self.arguments["name"])

    @property
    def subject(self) -> str:
        return f"the {self.kind.noun} {self.name}"

    def news(self) -> Iterator[Line]:
        description = self.kind.describe(self.aws, self.name)
        yield from self.changes(description)
        self._status = description[self.kind.status]
        self.ended = self._status not in RUNNING

    def changes(self, description: Mapping[str, Any]) -> Iterator[Line]:
        """What the description says that the last one did not."""
        raise NotImplementedError

    def pause(self, passed: float) -> float:
        return job_pause(passed)

    def stop(self) -> None:
        self.kind.stop(self.aws, self.name)


class LoggedJobFollower(JobFollower):
    """A job whose own log is shown, too; it is read once more after the job's end."""

    clients = ("sagemaker", "logs")
    log_group: ClassVar[str]

    def news(self) -> Iterator[Line]:
        had_ended = self._status not in RUNNING
        yield from super().news()
        self.ended = had_ended

    def changes(self, description: Mapping[str, Any]) -> Iterator[Line]:  # noqa: ARG002
        tail = LogTail(self.aws.logs, self.log_group, f"{self.name}/", self.position.setdefault("log", {}))
        yield from (Line(text) for text in without_noise(tail.lines(), self.position))

    def pause(self, passed: float) -> float:
        return super().pause(passed) if self._status in RUNNING else LAST_LINES_SECONDS


class TrainingFollower(LoggedJobFollower):
    """Shows the script's lines, SageMaker's stages, and every change of a Debugger rule."""

    kind = TRAINING
    log_group = TRAINING_JOBS

    def changes(self, description: Mapping[str, Any]) -> Iterator[Line]:
        yield from super().changes(description)
        transitions = description.get("SecondaryStatusTransitions", [])
        for transition in transitions[self.position.get("stages", 0) :]:
            yield Line(f"[SageMaker] {transition['Status']}: {transition.get('StatusMessage', '')}")
        self.position["stages"] = len(transitions)
        yield from changed_rules(rule_states(description), self.position.setdefault("rules", {}))


class ProcessingFollower(LoggedJobFollower):
    """Shows the script's lines."""

    kind = PROCESSING
    log_group = PROCESSING_JOBS


class TuningFollower(JobFollower):
    """Shows a line for every change of a trial, and every minute the last epoch of those that run."""

    kind = TUNING
    clients = ("sagemaker", "logs")

    def changes(self, description: Mapping[str, Any]) -> Iterator[Line]:
        counters = [description["TrainingJobStatusCounters"], description["ObjectiveStatusCounters"]]
        quiet = datetime.now(UTC) - datetime.fromisoformat(self.position.get("said", _LONG_AGO))
        if counters == self.position.get("counters") and quiet < _LONGEST_QUIET:
            return
        trials = trials_of(self.aws, self.name)
        yield from self._changed(trials)
        if quiet >= _LONGEST_QUIET:
            yield from self._epochs(trials, description)
        self.position["counters"] = counters
        self.position["said"] = datetime.now(UTC).isoformat()

    def _changed(self, trials: Iterable[Trial]) -> Iterator[Line]:
        shown, reasons = self.position.setdefault("trials", {}), self.position.setdefault("reasons", {})
        for trial in trials:
            line = trial_line(trial)
            if shown.get(trial["name"]) == line:
                continue
            shown[trial["name"]] = line
            yield Line(line)
            if reason := trial["reason"]:
                first = reasons.setdefault(reason, trial["name"])
                text = reason if first == trial["name"] else f"as {first}"
                yield Line(f"Trial {trial['name']} failed: {text}", logging.WARNING)

    def _epochs(self, trials: Iterable[Trial], description: Mapping[str, Any]) -> Iterator[Line]:
        """The newest line of each running trial's log that has the objective metric."""
        objective = _objective(description)
        if objective is None:
            return
        logs = self.position.setdefault("logs", {})
        for trial in trials:
            if trial["status"] not in RUNNING:
                logs.pop(trial["name"], None)
                continue
            tail = LogTail(
                self.aws.logs, TRAINING_JOBS, f"{trial['name']}/", logs.setdefault(trial["name"], {})
            )
            lines = [line for line in tail.lines() if objective.search(line)]
            if lines:
                yield Line(f"Trial {trial['name']}: {lines[-1].strip()}")


class RulesFollower(Follower):
    """Waits for the Debugger rules of the training job `name` that end after it, until the time `until`."""

    @property
    def subject(self) -> str:
        return f"the Debugger rules of {self.arguments['name']}"

    def news(self) -> Iterator[Line]:
        found = rule_states(TRAINING.describe(self.aws, self.arguments["name"]))
        yield from changed_rules(found, self.position.setdefault("rules", {}))
        running = [state.rule for state in found if state.status == IN_PROGRESS]
        late = datetime.now(UTC) >= datetime.fromisoformat(self.arguments["until"])
        if running and late:
            yield Line(f"Not ended in time: {', '.join(running)}", logging.ERROR)
        self.ended = late or not running

    def pause(self, passed: float) -> float:
        return job_pause(passed)


def changed_rules(found: Iterable[RuleState], shown: dict[str, str]) -> Iterator[Line]:
    """A line for every rule whose line is not the one in `shown`, which is brought up to date."""
    for state in found:
        if shown.get(state.rule) != state.line:
            shown[state.rule] = state.line
            yield Line(state.line, state.level)


def _objective(description: Mapping[str, Any]) -> re.Pattern[str] | None:
    """What finds the objective metric in a trial's log; None for an algorithm of SageMaker's own."""
    metric = description["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    algorithm = description["TrainingJobDefinition"]["AlgorithmSpecification"]
    for definition in algorithm.get("MetricDefinitions", ()):
        if definition["Name"] == metric:
            return re.compile(definition["Regex"])
    return None


def failures_of(trials: Sequence[Trial]) -> str:
    """Why trials failed, equal reasons once, each with the number of its trials; empty if none did."""
    counts = Counter(trial["reason"] for trial in trials if trial["reason"])
    return "; ".join(
        f"{count} of {len(trials)} trials failed: {reason}" for reason, count in counts.most_common()
    )


def trials_of(aws: Aws, name: str) -> list[Trial]:
    """The trials of a tuning job, oldest first."""
    pages = aws.sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
    )
    return [trial_of(summary) for page in pages for summary in page["TrainingJobSummaries"]]


def trial_line(trial: Trial) -> str:
    """A trial in one line of the log."""
    values = " ".join(f"{name}={_short(value)}" for name, value in sorted(trial["hyperparameters"].items()))
    objective = "" if trial["objective"] is None else f" objective={trial['objective']:.4f}"
    duration = "" if trial["seconds"] is None else f" in {trial['seconds']:.0f} s"
    return f"Trial {trial['name']}: {trial['status']}{objective} {values}{duration}"


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
