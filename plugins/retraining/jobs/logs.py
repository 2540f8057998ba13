"""What a job says and leaves: its log, followed in CloudWatch Logs, and its output archive in S3."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from retraining.aws.responses import or_none
from retraining.runs.results import TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
PROCESSING_JOBS = "/aws/sagemaker/ProcessingJobs"


@dataclass
class LogTail:
    """Reads what is new since the last call, from every stream of a group whose name starts with `prefix`.

    `tokens` says where in each stream the next call begins; another tail with it goes on from there.
    """

    client: CloudWatchLogsClient
    group: str
    prefix: str
    tokens: dict[str, str]

    def lines(self) -> Iterator[str]:
        """The new lines, stream by stream. None while the group or the streams do not exist yet."""
        streams = or_none(
            partial(
                self.client.describe_log_streams, logGroupName=self.group, logStreamNamePrefix=self.prefix
            )
        )
        for stream in streams["logStreams"] if streams else ():
            yield from self._new_lines(stream["logStreamName"])

    def _new_lines(self, stream: str) -> Iterator[str]:
        while True:
            token = self.tokens.get(stream)
            position = {"nextToken": token} if token else {}
            response = self.client.get_log_events(
                logGroupName=self.group,
                logStreamName=stream,
                startFromHead=True,
                **position,  # type: ignore[arg-type]
            )
            self.tokens[stream] = response["nextForwardToken"]
            for event in response["events"]:
                yield event["message"]
            if not response["events"]:
                return


def output_archive(training: TrainingResult) -> str:
    """URI of the archive of a training job's output folder; a job that left nothing there has none."""
    return f"{training['output']}/{training['job']}/output/output.tar.gz"


def archived(archive: bytes, beginning: str) -> Iterator[tuple[str, bytes]]:
    """The files of an archive whose names begin so, by name. Raises tarfile.TarError if it is unreadable."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            name = member.name.removeprefix("./")
            file = tar.extractfile(member) if name.startswith(beginning) else None
            if file is not None:
                yield name, file.read()
