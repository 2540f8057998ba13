"""The thread that runs a tuning job."""

from __future__ import annotations

import logging
import sqlite3
import threading

from local_sagemaker.context import Context
from local_sagemaker.lasting import RETRY_SECONDS
from local_sagemaker.store import Document
from local_sagemaker.tuning.progress import TUNING_JOB, TrainingJobs, TuningJob

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.25


class Supervisor(threading.Thread):
    """Runs one tuning job that is InProgress or Stopping."""

    def __init__(self, context: Context, training: TrainingJobs, name: str) -> None:
        super().__init__(name=f"tuning-{name}", daemon=True)
        self._context = context
        self._store = context.store
        self._training = training
        self._job = name
        self._closing = False
        self._wake = threading.Event()

    def wake(self) -> None:
        """Poll the job now."""
        self._wake.set()

    def close(self) -> None:
        """End the thread; the trials run on."""
        self._closing = True
        self.wake()
        if self.is_alive():
            self.join(timeout=10)

    def run(self) -> None:
        step = self._advance
        while not self._closing:
            try:
                step()
            except (OSError, sqlite3.OperationalError):
                logger.exception("Tuning job %s: the state could not be written", self._job)
                self._wake.wait(RETRY_SECONDS)
            except Exception:
                logger.exception("Tuning job %s: its supervisor failed", self._job)
                step = self._fail
            else:
                return

    def _advance(self) -> None:
        """Take the job from what is stored to its end."""
        tuning = TuningJob(self._context, self._training, self._job)
        tuning.adopt()
        while not self._closing and not tuning.advance():
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()

    def _fail(self) -> None:
        """Set the tuning job to Failed, so that no client waits for ever."""

        def change(job: Document) -> None:
            now = self._context.clock()
            job.update(
                HyperParameterTuningJobStatus="Failed",
                FailureReason="InternalServerError: the supervisor failed; see the runtime's log.",
                HyperParameterTuningEndTime=now,
                LastModifiedTime=now,
            )

        self._store.update(TUNING_JOB.resource_type, self._job, change)
