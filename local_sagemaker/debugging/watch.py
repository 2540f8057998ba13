"""Follows the rules of one training job, from its start until the last rule has ended.

Rules run beside the job and may end after it. Like a supervisor, a watch keeps nothing that matters in
memory: after a restart of the runtime a new one finds evaluator, sampler and status files where they were.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from local_sagemaker import processes
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.processes import (
    Observed,
    RuleFolders,
    last_lines,
    read_statuses,
    start_evaluator,
    start_sampler,
    stop,
)
from local_sagemaker.errors import ValidationError
from local_sagemaker.images import Images
from local_sagemaker.jobs.artifacts import FolderSync
from local_sagemaker.jobs.supervisor import ENDED
from local_sagemaker.objects import BucketMissingError, Objects
from local_sagemaker.platform import Platform
from local_sagemaker.processes import ProcessStartError
from local_sagemaker.store import Document, DocumentMissingError
from local_sagemaker.training import container
from local_sagemaker.training.documents import KIND, output_uri
from local_sagemaker.training.folders import TrainingFolders

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_DEFAULT_INTERVAL_MS = 500  # ProfilingIntervalInMilliseconds
_STOP_TRAINING = "stop_training"


class RuleWatch:
    """The rules and the sampler of one job. `stop_training` is called when a rule's action asks for it."""

    def __init__(
        self,
        name: str,
        platform: Platform,
        objects: Objects,
        images: Images,
        stop_training: Callable[[], None],
    ) -> None:
        self._name = name
        self._platform = platform
        self._objects = objects
        self._images = images
        self._stop_training = stop_training
        self._job_folders = TrainingFolders(platform.folder(KIND, name))
        self._folders = RuleFolders(self._job_folders.rules)
        self._closing = threading.Event()
        self.started = False
        self.ended = False
        self._thread = threading.Thread(target=self._run, name=f"rules-{name}", daemon=True)

    def start(self, job: Document) -> None:
        """Start what the job asks for, or find it again, and follow its rules in a thread of its own."""
        self.started = True
        try:
            self._start_processes(job, statuses.configurations(job))
        except (ProcessStartError, ValidationError) as error:
            self._close_rules(statuses.ERROR, f"InternalError: the rules could not be started: {error}")
            self.ended = True
        else:
            if statuses.pending(job):
                self._thread.start()
            else:
                self.ended = True

    def training_ended(self) -> None:
        """No more tensors and samples will come: the sampler ends now, the rules when they have seen all."""
        stop(self._folders.sampler)
        if self._folders.root.is_dir():
            self._folders.ended.touch()

    def close(self) -> None:
        """Leave the processes to themselves, because the runtime ends."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _start_processes(self, job: Document, rules: list[statuses.Configuration]) -> None:
        """On AWS an agent of the platform samples; here the program comes with the rules' image."""
        if not rules:
            return
        environment = self._images.resolve(rules[0]["RuleEvaluatorImage"])
        observed = Observed(
            self._name,
            job["CreationTime"],
            container.tensors_folder(job, self._job_folders)
            if "DebugHookConfig" in job
            else self._folders.root / "no-tensors",
            container.profiler_folder(job, self._job_folders)
            if container.profiles(job)
            else self._folders.root / "no-profile",
        )
        if container.profiles(job) and job["TrainingJobStatus"] not in ENDED:
            interval = job["ProfilerConfig"].get("ProfilingIntervalInMilliseconds", _DEFAULT_INTERVAL_MS)
            start_sampler(self._folders, environment, observed, interval, self._platform.settings)
        if statuses.pending(job):
            start_evaluator(self._folders, environment, rules, observed, self._platform.settings)

    def _run(self) -> None:
        try:
            while self._look() and not self._closing.wait(_POLL_SECONDS):
                pass
        except DocumentMissingError:
            logger.info("%s was deleted; its rules are no longer followed", self._name)
            stop(self._folders.evaluator)
        finally:
            self.ended = True

    def _look(self) -> bool:
        """Carry the news into the job's document; False when there is nothing left to wait for."""
        group = processes.find(self._folders.evaluator)
        if group is None:
            return False
        exit_code = group.exit_code()
        reports = read_statuses(self._folders)
        self._act(reports)
        job = self._platform.store.get(KIND, self._name)
        if job is None:
            raise DocumentMissingError(self._name)
        if _news(job, reports):
            self._upload(job)  # before the status that tells others to look for it
            job = self._platform.store.update(
                KIND, self._name, lambda document: statuses.apply(document, reports)
            )
        if exit_code is None:
            return True
        if statuses.pending(job):
            log = last_lines(self._folders, self._folders.evaluator)
            self._close_rules(
                statuses.ERROR, f"InternalError: the evaluator ended with exit code {exit_code}: {log}"
            )
        if job["TrainingJobStatus"] in ENDED:
            self._job_folders.discard_data()
        return False

    def _act(self, reports: list[dict[str, Any]]) -> None:
        """Carry out the built-in actions of rules that have fired."""
        if any(report.get("ActionRequested") == _STOP_TRAINING for report in reports):
            self._stop_training()

    def _upload(self, job: Document) -> None:
        try:
            FolderSync(self._folders.output, output_uri(job, "rule-output"), self._objects).sync(final=True)
        except (OSError, BucketMissingError):
            logger.exception("%s: the rules' output could not be put to S3", self._name)

    def _close_rules(self, outcome: str, details: str) -> None:
        now = self._platform.clock()
        self._platform.store.update(
            KIND, self._name, lambda document: statuses.close(document, outcome, details, now)
        )


def _news(job: Document, reports: list[dict[str, Any]]) -> bool:
    shown: Mapping[str, str] = {
        status["RuleConfigurationName"]: status["RuleEvaluationStatus"]
        for status in statuses.evaluations(job)
    }
    return any(shown.get(r["RuleConfigurationName"]) != r["RuleEvaluationStatus"] for r in reports)
