"""Takes one training job from its channels to its model in S3, and records its metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from local_sagemaker import processes
from local_sagemaker.channels import ChannelError, provide
from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.watch import RuleWatch
from local_sagemaker.image_environments import overlay
from local_sagemaker.jobs.artifacts import FolderSync, join_uri, upload_packed
from local_sagemaker.jobs.failures import JobFailedError
from local_sagemaker.jobs.ignored import log_ignored
from local_sagemaker.jobs.supervisor import Services, Supervisor
from local_sagemaker.logs import LogEvent
from local_sagemaker.processes import ProcessGroup
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError
from local_sagemaker.store import Document
from local_sagemaker.training import container, job_document
from local_sagemaker.training.folders import TrainingFolders
from local_sagemaker.training.job_document import TRAINING_JOB, output_uri
from local_sagemaker.training.metrics import definitions, final_metrics, scrape
from local_sagemaker.training.source import unpack_source

logger = logging.getLogger(__name__)

_END_MARKER = "training_job_end.ts"  # smdebug/core/access_layer/utils.py: readers of tensors wait for it


class TrainingSupervisor(Supervisor):
    """Takes one training job from its present state to its end."""

    def __init__(self, name: str, services: Services, rules: RuleWatch) -> None:
        self._folders = TrainingFolders(services.context.folder(TRAINING_JOB.resource_type, name))
        super().__init__(TRAINING_JOB, name, services, self._folders)
        self._rules = rules

    # -- the phases --------------------------------------------------------------------------------------

    def _launch(self) -> ProcessGroup | None:
        job = self._enter("Downloading", after="Starting")
        self._folders.create()
        log_ignored(self._folders.log, job)
        container.write_config(job, self._folders)
        environment = self._services.images.resolve(job["AlgorithmSpecification"]["TrainingImage"])
        environment = overlay(environment, self._folders.environment)
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
                job, self._folders, environment, self._context.settings
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
        self._rules.start()
        return super()._follow(group)

    def _record(self, events: list[LogEvent]) -> None:
        super()._record(events)
        self._keep_metrics(events)

    def _recall(self, events: list[LogEvent]) -> None:
        """The first metrics in these lines are in the store already."""
        super()._record(events)
        self._keep_metrics(events, known=len(self._context.store.metrics(self._name)))

    def _ask_to_end(self, group: ProcessGroup) -> None:
        """Kill the container without a warning to the script.

        On AWS, SIGTERM goes to the first process of the container, a shell that does not pass it on
        (sagemaker-training-toolkit #125, #173), and SIGKILL follows after 120 s.
        """
        group.kill()

    def _time_out(self, job: Document, now: float) -> None:
        job_document.request_stop(job, now, "MaxRuntimeExceeded")

    def _failure_text(self) -> str:
        failure = self._folders.failure
        return failure.read_text(errors="replace") if failure.is_file() else ""

    def _upload(self, syncs: list[FolderSync], *, succeeded: bool) -> None:
        job = self._enter("Uploading")
        self._mark_end(job)
        for sync in syncs:
            sync.sync(final=True)
        outputs = [(self._folders.output_data, "output")]
        if succeeded:
            outputs.append((self._folders.model, "model"))
        for folder, name in outputs:
            uri = output_uri(job, "output", name)
            if job_document.packs_output(job):
                upload_packed(folder, f"{uri}.tar.gz", self._folders.transfer, self._services.objects)
            else:
                FolderSync(folder, uri, self._services.objects).sync(final=True)

    def _conclude(self, reason: str | None, now: float) -> None:
        self._rules.training_ended()
        job = self._change(lambda document: job_document.finish(document, now, reason))
        self._folders.discard_data(keep_output=bool(statuses.pending(job)))
        container.clean_up(job, self._folders)

    # -- small steps -------------------------------------------------------------------------------------

    def _mark_end(self, job: Document) -> None:
        """Tell readers of tensors that no more will come: with TRAINING_JOB_NAME set, smdebug does not."""
        self._rules.training_ended()
        marked: list[Path] = []
        if "DebugHookConfig" in job:
            marked.append(container.tensors_folder(job, self._folders))
        if statuses.profiles(job):
            marked.append(container.profiler_folder(job, self._folders) / "framework")
        for folder in marked:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _END_MARKER).touch()

    def _syncs(self) -> list[FolderSync]:
        job = self._job()
        return [*self._checkpoints(job), *self._observations(job)]

    def _checkpoints(self, job: Document) -> Iterator[FolderSync]:
        if "CheckpointConfig" in job:
            folder = container.checkpoints_folder(job, self._folders)
            folder.mkdir(parents=True, exist_ok=True)
            yield FolderSync(folder, job["CheckpointConfig"]["S3Uri"], self._services.objects)

    def _observations(self, job: Document) -> Iterator[FolderSync]:
        """What Debugger, the profiler and TensorBoard write, to `<S3OutputPath>/<job>/`."""
        outputs = []
        if "DebugHookConfig" in job:
            outputs.append(("DebugHookConfig", container.tensors_folder, "debug-output"))
        if statuses.profiles(job) and "S3OutputPath" in job["ProfilerConfig"]:
            outputs.append(("ProfilerConfig", container.profiler_folder, "profiler-output"))
        if "TensorBoardOutputConfig" in job:
            outputs.append(("TensorBoardOutputConfig", container.tensorboard_folder, "tensorboard-output"))
        for member, folder, name in outputs:
            uri = join_uri(job[member]["S3OutputPath"], self._name, name)
            yield FolderSync(folder(job, self._folders), uri, self._services.objects)

    def _enter(self, status: str, after: str | None = None) -> Document:
        """Start a secondary status; with `after`, only if that is the present one."""
        now = self._context.clock()

        def change(job: Document) -> None:
            if after is None or job["SecondaryStatus"] == after:
                job_document.enter(job, status, now)

        return self._change(change)

    def _keep_metrics(self, events: list[LogEvent], known: int = 0) -> None:
        """Store the metrics in log lines, except the first `known`."""
        if not events:
            return
        wanted = definitions(self._job()["AlgorithmSpecification"])
        store = self._context.store
        found = list(scrape(events, wanted))
        for metric in found[known:]:
            store.add_metric(self._name, metric.name, metric.value, metric.timestamp)
        if found:
            final = final_metrics(wanted, store.metrics(self._name))
            self._change(lambda document: document.update(FinalMetricDataList=final))
