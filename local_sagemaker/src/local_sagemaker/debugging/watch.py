"""Follows the rules of one training job, from its start until the last rule has ended.

Rules run beside the job and may end after it. Like a supervisor, a watch keeps no state that matters in
memory: after a restart of the runtime, a new one finds evaluators, sampler and status files on disk.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_sagemaker import processes
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.logs import follower
from local_sagemaker.debugging.processes import (
    Evaluator,
    Observed,
    RuleFolders,
    read_statuses,
    start_evaluator,
    start_sampler,
    stop,
)
from local_sagemaker.errors import ValidationError
from local_sagemaker.jobs.artifacts import FolderSync
from local_sagemaker.jobs.supervisor import ENDED, Services
from local_sagemaker.lasting import attempt
from local_sagemaker.logs import LogFollower
from local_sagemaker.processes import ProcessStartError
from local_sagemaker.s3.objects import BucketMissingError
from local_sagemaker.store import Change, Document, DocumentMissingError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_DEFAULT_INTERVAL_MS = 500  # ProfilingIntervalInMilliseconds
_STOP_TRAINING = "stop_training"
_NOT_STARTED = "The training job ended before its container ran; there was nothing to evaluate."


@dataclass(frozen=True)
class WatchedJob:
    """The training job of a watch: the kind and name of its document, its folders and its output.

    `rules` is the folder for what the rules leave on disk. `tensors` and `profile` are where the job writes,
    None where it saves no tensors or has no profiler. `output_uri` is the S3 prefix for the rules' output.
    """

    kind: str
    name: str
    rules: Path
    tensors: Path | None
    profile: Path | None
    output_uri: str


class RuleWatch:
    """The rules and the sampler of one job.

    `stop_training` is called when a rule's action asks for it, `rules_ended` when the last rule has ended
    after the training.
    """

    def __init__(
        self,
        job: WatchedJob,
        services: Services,
        *,
        stop_training: Callable[[], None],
        rules_ended: Callable[[], None],
    ) -> None:
        self._watched = job
        self._services = services
        self._store = services.context.store
        self._stop_training = stop_training
        self._rules_ended = rules_ended
        self._folders = RuleFolders(job.rules)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._followers: dict[Path, LogFollower] = {}
        self._started = False
        self._training_ended = False

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to watch: neither training nor rules."""
        return self._training_ended and self._thread is None

    def start(self) -> None:
        """Follow the job's rules, if it has some: its container runs, or ran before a restart."""
        with self._lock:
            self._started = True
            self._follow()

    def observe(self, job: WatchedJob) -> None:
        """Use the folders of an updated job. Comes before the document with further rules is in the store,
        so that no evaluator of theirs starts with the old folders."""
        self._watched = job

    def rules_added(self) -> None:
        """Follow further rules; before the container runs, they all wait for `start`."""
        with self._lock:
            if self._started:
                self._follow()

    def training_ended(self) -> None:
        """No more tensors and samples will come: stop the sampler, and let the rules end on what is there.

        The rules of a job whose container never ran are stopped.
        """
        with self._lock:
            self._training_ended = True
            if not self._started:
                self._close_rules(_names(statuses.pending(self._job())), statuses.STOPPED, _NOT_STARTED)
            stop(self._folders.sampler)
            if self._folders.root.is_dir():
                self._folders.ended.touch()

    def close(self) -> None:
        """Stop following because the runtime ends; the processes run on."""
        self._closing.set()
        if (thread := self._thread) is not None:
            thread.join()

    def discard(self) -> None:
        """Stop following and end the processes, because the job is deleted."""
        self.close()
        for evaluator in self._folders.evaluators():
            stop(evaluator.group.folder)

    def _follow(self) -> None:
        job = self._job()
        self._show_logs(job, self._folders.evaluators())
        self._training_ended |= job["TrainingJobStatus"] in ENDED
        if statuses.pending(job) and self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._run, name=f"rules-{self._watched.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            attempt(self._step, f"Polling the rules of {self._watched.name}")
            if self._thread is not threading.current_thread() or self._closing.wait(_POLL_SECONDS):
                return

    def _step(self) -> None:
        """Poll once. The lock keeps rules from being added at the very moment of the end."""
        with self._lock:
            try:
                goes_on = self._poll()
            except DocumentMissingError:  # the job is deleted
                goes_on = False
            except (OSError, sqlite3.OperationalError):
                raise  # and be tried again
            except Exception as error:
                logger.exception("%s: its rules cannot be followed", self._watched.name)
                reason = f"InternalError: {type(error).__name__}: {error}"
                self._close_rules(_names(statuses.pending(self._job())), statuses.ERROR, reason)
                goes_on = False
            if not goes_on:
                self._thread = None

    def _poll(self) -> bool:
        """Update the job's document from the status files; False when there is nothing left to wait for."""
        job = self._job()
        evaluators = self._evaluators(job)
        exit_codes = [evaluator.group.exit_code() for evaluator in evaluators]
        self._show_logs(job, evaluators, final=None not in exit_codes)
        reports = read_statuses(self._folders)
        self._act(reports)
        if _has_results(job, reports):
            self._upload()  # before the status that tells clients to read it
            job = self._change(lambda document: statuses.apply(document, reports))
        for evaluator, exit_code in zip(evaluators, exit_codes, strict=True):
            if exit_code is not None and statuses.pending(job):
                reason = f"the evaluator ended with exit code {exit_code}: {evaluator.last_lines()}"
                job = self._close_rules(evaluator.rules, statuses.ERROR, f"InternalError: {reason}")
        if None in exit_codes or statuses.pending(job):
            return True
        if self._job()["TrainingJobStatus"] in ENDED:
            self._rules_ended()
        return False

    def _evaluators(self, job: Document) -> list[Evaluator]:
        """All evaluators of the job, with a new one where rules have none yet."""
        evaluators = self._folders.evaluators()
        known = {name for evaluator in evaluators for name in evaluator.rules}
        rules = [rule for rule in statuses.pending(job) if rule["RuleConfigurationName"] not in known]
        if not rules:
            return evaluators
        try:
            return [*evaluators, self._start_programs(job, rules)]
        except (ProcessStartError, ValidationError) as error:
            reason = f"InternalError: the rules could not be started: {error}"
            self._close_rules(_names(rules), statuses.ERROR, reason)
            return evaluators

    def _start_programs(self, job: Document, rules: list[statuses.Configuration]) -> Evaluator:
        """Start an evaluator, and the sampler with the first one. On AWS, the platform does the sampling."""
        environment = self._services.images.resolve(rules[0]["RuleEvaluatorImage"])
        settings = self._services.context.settings
        watched = self._watched
        observed = Observed(
            job=watched.name,
            started=job["CreationTime"],
            tensors=watched.tensors or self._folders.root / "no-tensors",
            profile=watched.profile or self._folders.root / "no-profile",
        )
        samples = watched.profile is not None and not self._training_ended
        if samples and processes.find(self._folders.sampler) is None:
            interval = job["ProfilerConfig"].get("ProfilingIntervalInMilliseconds", _DEFAULT_INTERVAL_MS)
            start_sampler(self._folders, environment, observed, interval, settings)
        evaluator = start_evaluator(self._folders, environment, rules, observed, settings)
        if self._training_ended:
            self._folders.ended.touch()
        return evaluator

    def _show_logs(self, job: Document, evaluators: Iterable[Evaluator], *, final: bool = False) -> None:
        for evaluator in evaluators:
            if evaluator.log not in self._followers:
                self._followers[evaluator.log] = follower(job, evaluator, self._services.logs)
            self._followers[evaluator.log].poll(final=final)

    def _act(self, reports: list[dict[str, Any]]) -> None:
        """Carry out the built-in actions of rules that have fired."""
        if any(report.get("ActionRequested") == _STOP_TRAINING for report in reports):
            self._stop_training()

    def _upload(self) -> None:
        uri = self._watched.output_uri
        try:
            FolderSync(self._folders.output, uri, self._services.objects).sync(final=True)
        except (OSError, BucketMissingError):
            logger.exception("%s: could not upload the output of the rules", self._watched.name)

    def _job(self) -> Document:
        job = self._store.get(self._watched.kind, self._watched.name)
        if job is None:
            raise DocumentMissingError(self._watched.name)
        return job

    def _change(self, change: Change) -> Document:
        return self._store.update(self._watched.kind, self._watched.name, change)

    def _close_rules(self, rules: Collection[str], outcome: str, details: str) -> Document:
        now = self._services.context.clock()
        return self._change(lambda document: statuses.close(document, rules, outcome, details, now))


def _names(rules: Iterable[statuses.Configuration]) -> list[str]:
    return [rule["RuleConfigurationName"] for rule in rules]


def _has_results(job: Document, reports: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a report ends the evaluation of a rule."""
    pending = _names(statuses.pending(job))
    return any(
        report["RuleConfigurationName"] in pending and report["RuleEvaluationStatus"] != statuses.IN_PROGRESS
        for report in reports
    )
