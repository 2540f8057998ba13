"""The life of one training job: download, run, follow, upload. Every step can be done again.

A supervisor keeps nothing that matters in memory. After a restart, a new one reads the document, looks for
the process in the job's folder, and goes on from there.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_sagemaker import images, processes
from local_sagemaker.channels import ChannelError, ObjectCache, provide
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.watch import RuleWatch
from local_sagemaker.images import Images
from local_sagemaker.logs import CloudWatchLogs, LogEvent, LogFollower, read_journal
from local_sagemaker.objects import BucketMissingError, ObjectMissingError, Objects
from local_sagemaker.platform import Platform
from local_sagemaker.processes import ProcessGroup, ProcessStartError
from local_sagemaker.store import Document
from local_sagemaker.training import container, documents
from local_sagemaker.training.artifacts import FolderSync, join_uri, upload_packed
from local_sagemaker.training.documents import KIND, LOG_GROUP, output_uri
from local_sagemaker.training.failures import LIMIT, JobFailedError, failure_reason
from local_sagemaker.training.folders import JobFolders
from local_sagemaker.training.metrics import definitions, final_metrics, scrape
from local_sagemaker.training.source import unpack_source

logger = logging.getLogger(__name__)

GRACE_SECONDS = 120.0  # between SIGTERM and SIGKILL (StopTrainingJob)

_NOT_STARTED = "The training job ended before its container ran; there was nothing to look at."
_POLL_SECONDS = 0.25
_SYNC_SECONDS = 2.0
_KILL_SECONDS = 10.0
_REMEMBERED_LINES = 1000  # for the exception at the end of a log
_END_MARKER = "training_job_end.ts"  # smdebug/core/access_layer/utils.py: readers of tensors wait for it


class RuntimeClosingError(Exception):
    """The runtime ends and the job goes on without it."""


@dataclass(frozen=True)
class Services:
    """What supervisors share."""

    platform: Platform
    objects: Objects
    images: Images
    cache: ObjectCache
    logs: CloudWatchLogs


class Supervisor:
    """Takes one job from where it is to its end. `run` is for a thread of its own."""

    def __init__(self, name: str, services: Services, rules: RuleWatch) -> None:
        self._name = name
        self._services = services
        self._rules = rules
        self._platform = services.platform
        self._folders = JobFolders(services.platform.folder(KIND, name))
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._recent: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._asked: set[int] = set()

    def wake(self) -> None:
        """Look at the document now: something has changed."""
        self._wake.set()

    def close(self) -> None:
        """Leave the job to itself."""
        self._closing.set()
        self._wake.set()

    def run(self) -> None:
        reason: str | None = (
            "InternalServerError: an unforeseen error; the local SageMaker's log has the traceback"
        )
        try:
            reason = self._execute()
        except RuntimeClosingError:
            return
        except (JobFailedError, ChannelError, BucketMissingError, ObjectMissingError) as error:
            reason = f"ClientError: {error}"
        except ProcessStartError as error:
            reason = f"InternalServerError: {error}"
        except (OSError, sqlite3.OperationalError) as error:
            reason = self._disk_reason(error)
        finally:
            if not self._closing.is_set() or reason is None:
                self._finish(reason)

    # -- the phases --------------------------------------------------------------------------------------

    def _execute(self) -> str | None:
        """All phases that are still to do; returns the failure reason, if any."""
        group = processes.find(self._folders.process)
        if group is None:
            group = self._launch()
        if group is None:
            return None
        self._rules.start(self._job())
        with _Background(self._syncs()) as syncs:
            exit_code = self._follow(group)
        reason = self._reason(exit_code)
        try:
            self._upload(syncs.folders, with_model=reason is None)
        except (OSError, sqlite3.OperationalError):
            if reason is None:
                raise
            logger.warning("%s: the output of the failed job is not in S3", self._name, exc_info=True)
        return reason

    def _launch(self) -> ProcessGroup | None:
        """Prepare the container and start it; None when the job was stopped meanwhile."""
        job = self._enter("Downloading", after="Starting")
        self._folders.create()
        container.write_config(job, self._folders)
        environment = self._services.images.resolve(job["AlgorithmSpecification"]["TrainingImage"])
        environment = images.overlay(environment, self._folders.environment)
        for channel in job["InputDataConfig"]:
            if self._stopping():
                return None
            self._download(channel["ChannelName"], job)
        for sync in self._checkpoints(job):
            sync.download()
        unpack_source(
            job["HyperParameters"], self._folders.code, self._folders.transfer, self._services.objects
        )
        job = self._enter("Training", after="Downloading")
        if job["TrainingJobStatus"] == "Stopping":
            return None
        return processes.start(
            self._folders.process,
            container.command(environment),
            environment=container.environment_variables(
                job, self._folders, environment, self._platform.settings
            ),
            cwd=self._folders.base,
            log=self._folders.log,
        )

    def _download(self, name: str, job: Document) -> None:
        channel = next(item for item in job["InputDataConfig"] if item["ChannelName"] == name)
        try:
            count = provide(
                channel, self._folders.channel(name), self._services.objects, self._services.cache
            )
        except (ChannelError, BucketMissingError, ObjectMissingError) as error:
            raise JobFailedError(f"Data download failed: channel {name!r}: {error}") from error
        logger.info("%s: channel %s has %d files", self._name, name, count)

    def _follow(self, group: ProcessGroup) -> int:
        """Carry log and metrics on until the process has ended; returns its exit code."""
        job = self._job()
        follower = LogFollower(
            self._folders.log,
            self._folders.journal,
            lambda events: self._services.logs.put(LOG_GROUP, job["_LogStream"], events),
        )
        self._record(list(read_journal(self._folders.journal)), job, again=True)
        while True:
            exit_code = group.exit_code()
            self._record(follower.poll(final=exit_code is not None), job)
            if exit_code is not None:
                return exit_code
            self._enforce(group)
            self._pause()

    def _record(self, events: list[LogEvent], job: Document, *, again: bool = False) -> None:
        """Keep the metrics in log lines. `again`: lines from before a restart, whose metrics may be known
        already.
        """
        self._recent.extend(event.message for event in events)
        wanted = definitions(job["AlgorithmSpecification"])
        store = self._platform.store
        found = list(scrape(events, wanted))
        for metric in found[len(store.metrics(self._name)) if again else 0 :]:
            store.add_metric(self._name, metric.name, metric.value, metric.timestamp)
        if found:
            final = final_metrics(wanted, store.metrics(self._name))
            store.update(KIND, self._name, lambda document: document.update(FinalMetricDataList=final))

    def _enforce(self, group: ProcessGroup) -> None:
        """Stop the process where that was asked for or its time is over: SIGTERM, later SIGKILL."""
        job = self._job()
        now = self._platform.clock()
        if job["TrainingJobStatus"] != "Stopping":
            limit = job["StoppingCondition"]["MaxRuntimeInSeconds"]
            if now - job["TrainingStartTime"] <= limit:
                return
            job = self._change(lambda document: documents.request_stop(document, now, "MaxRuntimeExceeded"))
        if now - job["_StopRequested"] > GRACE_SECONDS:
            group.kill()
        else:
            self._asked |= group.terminate_script(self._asked)

    def _reason(self, exit_code: int) -> str | None:
        """Why the job failed; None where it succeeded or was stopped."""
        if exit_code == 0 or self._stopping():
            return None
        failure = self._folders.failure
        text = failure.read_text(errors="replace") if failure.is_file() else ""
        return failure_reason(exit_code, text, list(self._recent))

    def _upload(self, syncs: list[FolderSync], *, with_model: bool) -> None:
        job = self._enter("Uploading")
        self._mark_end(job)
        for sync in syncs:
            sync.sync(final=True)
        outputs = [(self._folders.output_data, "output")]
        if with_model:
            outputs.append((self._folders.model, "model"))
        for folder, name in outputs:
            uri = output_uri(job, "output", name)
            if documents.packs_output(job):
                upload_packed(folder, f"{uri}.tar.gz", self._folders.transfer, self._services.objects)
            else:
                FolderSync(folder, uri, self._services.objects).sync(final=True)

    def _mark_end(self, job: Document) -> None:
        """Tell those who read tensors that no more will come: with TRAINING_JOB_NAME set, smdebug leaves it
        to us.
        """
        self._rules.training_ended()
        marked: list[Path] = []
        if "DebugHookConfig" in job:
            marked.append(container.tensors_folder(job, self._folders))
        if container.profiles(job):
            marked.append(container.profiler_folder(job, self._folders) / "framework")
        for folder in marked:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _END_MARKER).touch()

    def _finish(self, reason: str | None) -> None:
        now = self._platform.clock()
        if reason is not None:
            logger.info("%s failed: %s", self._name, reason)
            self._end_process()
            self._folders.discard_data()  # first, because a full disk would not let the store be written
        short = None if reason is None else reason[:LIMIT]
        if not self._rules.started:
            self._change(lambda document: statuses.close(document, statuses.STOPPED, _NOT_STARTED, now))
        job = self._change(lambda document: documents.finish(document, now, short))
        self._folders.discard_data(keep_output=statuses.pending(job))
        container.clean_up(job, self._folders)

    # -- small steps -------------------------------------------------------------------------------------

    def _syncs(self) -> list[FolderSync]:
        """The folders that go to S3 while the job runs."""
        job = self._job()
        return [*self._checkpoints(job), *self._observations(job)]

    def _checkpoints(self, job: Document) -> Iterator[FolderSync]:
        if "CheckpointConfig" in job:
            folder = container.checkpoints_folder(job, self._folders)
            folder.mkdir(parents=True, exist_ok=True)
            yield FolderSync(folder, job["CheckpointConfig"]["S3Uri"], self._services.objects)

    def _observations(self, job: Document) -> Iterator[FolderSync]:
        """What Debugger, the profiler and TensorBoard write, below `<their S3OutputPath>/<job>/`."""
        outputs = []
        if "DebugHookConfig" in job:
            outputs.append(("DebugHookConfig", container.tensors_folder, "debug-output"))
        if container.profiles(job) and "S3OutputPath" in job["ProfilerConfig"]:
            outputs.append(("ProfilerConfig", container.profiler_folder, "profiler-output"))
        if "TensorBoardOutputConfig" in job:
            outputs.append(("TensorBoardOutputConfig", container.tensorboard_folder, "tensorboard-output"))
        for member, folder, name in outputs:
            uri = join_uri(job[member]["S3OutputPath"], self._name, name)
            yield FolderSync(folder(job, self._folders), uri, self._services.objects)

    def _job(self) -> Document:
        job = self._platform.store.get(KIND, self._name)
        if job is None:
            raise JobFailedError(f"the training job {self._name} is gone from the store")
        return job

    def _change(self, change: documents.Change) -> Document:
        return self._platform.store.update(KIND, self._name, change)

    def _enter(self, status: str, after: str | None = None) -> Document:
        """Go on to a secondary status, but with `after` only from that one."""
        now = self._platform.clock()

        def change(job: Document) -> None:
            if after is None or job["SecondaryStatus"] == after:
                documents.enter(job, status, now)

        return self._change(change)

    def _stopping(self) -> bool:
        return bool(self._job()["TrainingJobStatus"] == "Stopping")

    def _pause(self) -> None:
        self._wake.wait(_POLL_SECONDS)
        self._wake.clear()
        if self._closing.is_set():
            raise RuntimeClosingError

    def _end_process(self) -> None:
        """Leave no process behind a job that failed for another reason than its process's end."""
        group = processes.find(self._folders.process)
        if group is not None and group.running():
            group.kill()
            group.wait(_KILL_SECONDS)

    def _disk_reason(self, error: OSError | sqlite3.OperationalError) -> str:
        full = (
            "disk is full" in str(error) if isinstance(error, sqlite3.Error) else error.errno == errno.ENOSPC
        )
        if not full:
            return f"InternalServerError: {error}"
        root = self._platform.settings.root
        return (
            f"ClientError: The disk is full ({getattr(error, 'filename', None) or root}). Free space on the "
            f"disk of {root} and create the job again"
        )


class _Background:
    """Syncs folders in a thread of its own while a process is followed, so that big files do not delay the
    log.
    """

    def __init__(self, folders: list[FolderSync]) -> None:
        self.folders = folders
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sync", daemon=True)

    def __enter__(self) -> _Background:
        if self.folders:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._done.wait(_SYNC_SECONDS):
            for folder in self.folders:
                try:
                    folder.sync()
                except (OSError, sqlite3.OperationalError, BucketMissingError) as error:
                    logger.warning("sync to S3 is behind, and will be tried again: %s", error)
