"""Takes one job from launch to upload. Every step can be repeated.

A supervisor keeps no state that matters in memory. After a restart, a new one reads the document, finds the
process by the job's folder, and continues from there.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

from local_sagemaker import processes
from local_sagemaker.channels import ChannelError, ObjectCache
from local_sagemaker.context import Context
from local_sagemaker.errors import is_disk_full
from local_sagemaker.image_environments import Images
from local_sagemaker.jobs.artifacts import BackgroundSync, FolderSync
from local_sagemaker.jobs.failures import LIMIT, JobFailedError, failure_reason
from local_sagemaker.jobs.folders import JobFolders
from local_sagemaker.lasting import RETRY_SECONDS, attempt
from local_sagemaker.logs import CloudWatchLogs, LogEvent, LogFollower, read_journal
from local_sagemaker.paths import UnsafePathError
from local_sagemaker.processes import ProcessGroup, ProcessStartError
from local_sagemaker.resources import ResourceKind
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError, Objects
from local_sagemaker.store import Change, Document

logger = logging.getLogger(__name__)

ENDED = frozenset({"Completed", "Failed", "Stopped"})
GRACE_SECONDS = 120.0  # between a signal and SIGKILL (StopTrainingJob; AWS documents none for others)

_POLL_SECONDS = 0.25
_KILL_SECONDS = 10.0
_JOIN_SECONDS = 10.0
_REMEMBERED_LINES = 1000  # for the exception at the end of a log


class RuntimeClosingError(Exception):
    """The runtime ends; the job goes on without it."""


@dataclass(frozen=True)
class Services:
    """What the services and supervisors of all jobs share."""

    context: Context
    objects: Objects
    images: Images
    cache: ObjectCache
    logs: CloudWatchLogs

    @classmethod
    def of(cls, context: Context, objects: Objects) -> Services:
        """Raises ImagesFileError."""
        settings = context.settings
        return cls(
            context,
            objects,
            Images(settings.images),
            ObjectCache(settings.root / "cache", objects),
            CloudWatchLogs(settings.region),
        )


@dataclass(frozen=True, kw_only=True)
class JobKind(ResourceKind):
    """A kind of job. `log_group` is its group in CloudWatch Logs."""

    log_group: str

    @property
    def start_time(self) -> str:
        return self.prefix.removesuffix("Job") + "StartTime"

    @property
    def title(self) -> str:
        """In messages: `training job`."""
        return self.resource_type.replace("-", " ")


class Supervisor(ABC):
    """Takes one job from its present state to its end. `run` needs a thread of its own."""

    def __init__(self, kind: JobKind, name: str, services: Services, folders: JobFolders) -> None:
        self._kind = kind
        self._name = name
        self._services = services
        self._context = services.context
        self._job_folders = folders
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED_LINES)

    def wake(self) -> None:
        """Poll the document now, because it has changed."""
        self._wake.set()

    def close(self) -> None:
        """Stop following; the job itself runs on."""
        self._closing.set()
        self._wake.set()

    def run(self) -> None:
        reason: str | None = (
            "InternalServerError: unexpected error; the local SageMaker's log has the traceback"
        )
        try:
            reason = self._execute()
        except RuntimeClosingError:
            return
        except (
            JobFailedError,
            ChannelError,
            UnsafePathError,
            BucketMissingError,
            ObjectMissingError,
        ) as error:
            reason = f"ClientError: {error}"
        except ProcessStartError as error:
            reason = f"InternalServerError: {error}"
        except (OSError, sqlite3.OperationalError) as error:
            reason = self._disk_reason(error)
        finally:
            if not self._closing.is_set() or reason is None:
                self._end(reason)

    # -- what differs between kinds of jobs --------------------------------------------------------------

    @abstractmethod
    def _launch(self) -> ProcessGroup | None:
        """Prepare the container and start it; None if the job was stopped in the meantime."""

    @abstractmethod
    def _syncs(self) -> list[FolderSync]:
        """The folders to sync to S3 while the job runs."""

    @abstractmethod
    def _ask_to_end(self, group: ProcessGroup) -> None:
        """Make the process end. Called repeatedly while the job is stopping, during its grace period."""

    @abstractmethod
    def _time_out(self, job: Document, now: float) -> None:
        """Set a job that has exceeded its MaxRuntimeInSeconds to stopping."""

    @abstractmethod
    def _upload(self, syncs: list[FolderSync], *, succeeded: bool) -> None:
        """Upload the results; `succeeded` is false for a job that will be Failed."""

    @abstractmethod
    def _conclude(self, reason: str | None, now: float) -> None:
        """Set the final status and free the disk. `reason` is the FailureReason of a failed job."""

    def _failure_text(self) -> str:
        """The container's own text on its failure."""
        return ""

    def _record(self, events: list[LogEvent]) -> None:
        """Handle new log lines."""
        self._recent.extend(event.message for event in events)

    def _recall(self, events: list[LogEvent]) -> None:
        """Handle the log lines from before a restart."""
        self._record(events)

    # -- the phases --------------------------------------------------------------------------------------

    def _execute(self) -> str | None:
        """Run the remaining phases; returns the failure reason, if any."""
        group = processes.find(self._job_folders.process) or self._launch()
        if group is None:
            return None
        with BackgroundSync(self._syncs()) as syncs:
            exit_code = self._follow(group)
        reason = self._reason(exit_code)
        try:
            self._upload(syncs.folders, succeeded=reason is None)
        except (OSError, sqlite3.OperationalError):
            if reason is None:
                raise
            logger.warning("%s: could not upload the output of the failed job", self._name, exc_info=True)
        return reason

    def _follow(self, group: ProcessGroup) -> int:
        """Follow the log until the process has ended; returns its exit code."""
        stream, journal = self._job()["_LogStream"], self._job_folders.journal
        follower = LogFollower(
            self._job_folders.log,
            journal,
            lambda events: self._services.logs.put(self._kind.log_group, stream, events),
        )
        self._recall(list(read_journal(journal)))
        while True:
            exit_code = group.exit_code()
            self._record(follower.poll(final=exit_code is not None))
            if exit_code is not None:
                return exit_code
            self._enforce(group)
            self._pause()

    def _enforce(self, group: ProcessGroup) -> None:
        """Stop the process on request or after its maximum runtime, at the latest after the grace period."""
        job = self._job()
        now = self._context.clock()
        if job[self._kind.status] != "Stopping":
            if now - job[self._kind.start_time] <= job["StoppingCondition"]["MaxRuntimeInSeconds"]:
                return
            job = self._change(lambda document: self._time_out(document, now))
        if now - job["_StopRequested"] > GRACE_SECONDS:
            group.kill()
        else:
            self._ask_to_end(group)

    def _reason(self, exit_code: int) -> str | None:
        """Why the job failed; None if it succeeded or was stopped."""
        if exit_code == 0 or self._stopping():
            return None
        return failure_reason(exit_code, self._failure_text(), list(self._recent))

    def _end(self, reason: str | None) -> None:
        """Write the final status, however long the disk is full: a client may wait for it."""
        while not attempt(lambda: self._finish(reason), f"Ending {self._name}"):
            if self._closing.wait(RETRY_SECONDS):
                return

    def _finish(self, reason: str | None) -> None:
        if reason is not None:
            logger.info("%s failed: %s", self._name, reason)
            self._end_process()
            self._job_folders.discard_data()  # first, because the store cannot be written on a full disk
        self._conclude(None if reason is None else reason[:LIMIT], self._context.clock())

    # -- small steps -------------------------------------------------------------------------------------

    def _job(self) -> Document:
        job = self._context.store.get(self._kind.resource_type, self._name)
        if job is None:
            raise JobFailedError(f"the {self._kind.title} {self._name} is not in the store")
        return job

    def _change(self, change: Change) -> Document:
        return self._context.store.update(self._kind.resource_type, self._name, change)

    def _stopping(self) -> bool:
        return bool(self._job()[self._kind.status] == "Stopping")

    def _pause(self) -> None:
        self._wake.wait(_POLL_SECONDS)
        self._wake.clear()
        if self._closing.is_set():
            raise RuntimeClosingError

    def _end_process(self) -> None:
        """Kill the process of a job that failed while it was running."""
        group = processes.find(self._job_folders.process)
        if group is not None and group.running():
            group.kill()
            group.wait(_KILL_SECONDS)

    def _disk_reason(self, error: OSError | sqlite3.OperationalError) -> str:
        if not is_disk_full(error):
            return f"InternalServerError: {error}"
        root = self._context.settings.root
        return (
            f"ClientError: The disk is full ({getattr(error, 'filename', None) or root}). Free space on the "
            f"disk of {root} and create the job again"
        )


class Supervisors:
    """The running supervisors, each in its own thread. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Supervisor, threading.Thread]] = {}

    def start(self, name: str, supervisor: Supervisor) -> None:
        thread = threading.Thread(target=self._run, args=(name, supervisor), name=f"job-{name}", daemon=True)
        with self._lock:
            self._running[name] = (supervisor, thread)
        thread.start()

    def wake(self, name: str) -> None:
        """Make a job's supervisor, if it has one, poll the document now."""
        with self._lock:
            running = self._running.get(name)
        if running is not None:
            running[0].wake()

    def close(self) -> None:
        """Stop following; the jobs themselves run on."""
        with self._lock:
            running = list(self._running.values())
        for supervisor, _ in running:
            supervisor.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for _, thread in running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, name: str, supervisor: Supervisor) -> None:
        try:
            supervisor.run()
        finally:
            with self._lock:
                self._running.pop(name, None)
