"""What a job says and leaves: its log, followed in CloudWatch Logs, and its output archive in S3."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from retraining.aws.responses import or_none
from retraining.runs.results import TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
PROCESSING_JOBS = "/aws/sagemaker/ProcessingJobs"
ENDPOINTS = "/aws/sagemaker/Endpoints"
MOST_MEMBERS = 100_000  # of an output archive
MOST_BYTES = 64 * 2**20  # of a file that is read into memory: statuses, metrics and the profiler's page

_STALE = timedelta(hours=2)  # CloudWatch Logs updates a stream's lastEventTimestamp within the hour


@dataclass
class LogTail:
    """Reads what is new since the last call, from every stream of a group whose name starts with `prefix`.

    `tokens` says where in each stream the next call begins; another tail with it goes on from there. `since`
    leaves older lines out.
    """

    client: CloudWatchLogsClient
    group: str
    prefix: str
    tokens: dict[str, str]
    since: datetime | None = None

    def lines(self) -> Iterator[str]:
        """The new lines, stream by stream. None while the group or the streams do not exist yet."""
        for stream in or_none(self._streams) or ():
            yield from self._new_lines(stream)

    def _streams(self) -> list[str]:
        """Names of the streams that may have new lines."""
        named = {"logStreamNamePrefix": self.prefix} if self.prefix else {}
        pages = self.client.get_paginator("describe_log_streams").paginate(
            logGroupName=self.group,
            **named,  # type: ignore[arg-type]
        )
        since = _milliseconds(self.since - _STALE) if self.since else 0
        return [
            stream["logStreamName"]
            for page in pages
            for stream in page["logStreams"]
            if stream.get("lastEventTimestamp", since) >= since
        ]

    def _new_lines(self, stream: str) -> Iterator[str]:
        while True:
            position: dict[str, Any] = {"startTime": _milliseconds(self.since)} if self.since else {}
            if token := self.tokens.get(stream):
                position["nextToken"] = token
            response = self.client.get_log_events(
                logGroupName=self.group,
                logStreamName=stream,
                startFromHead=True,
                **position,
            )
            self.tokens[stream] = response["nextForwardToken"]
            for event in response["events"]:
                yield event["message"]
            if not response["events"]:
                return


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def endpoint_lines(client: CloudWatchLogsClient, endpoint: str, since: datetime) -> Iterator[str]:
    """What all instances of an endpoint have logged since then, instance by instance."""
    return LogTail(client, f"{ENDPOINTS}/{endpoint}", "", {}, since).lines()


def output_archive(training: TrainingResult) -> str:
    """URI of the archive of a training job's output folder; a job that left nothing there has none."""
    return f"{training['output']}/{training['job']}/output/output.tar.gz"


def archived(archive: bytes, beginning: str) -> Iterator[tuple[str, bytes]]:
    """The plain files of an archive whose names begin so, by name.

    Raises tarfile.TarError if it is unreadable, or has more than MOST_MEMBERS or a file above MOST_BYTES.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz", tarinfo=_Member) as tar:
            for name, member in _plain(tar, beginning):
                if (file := tar.extractfile(member)) is not None:
                    yield name, file.read()
    except (EOFError, OSError, zlib.error, RecursionError) as error:
        raise tarfile.ReadError(f"the archive is damaged: {error}") from error


def _plain(tar: tarfile.TarFile, beginning: str) -> list[tuple[str, tarfile.TarInfo]]:
    found = {}
    for number, member in enumerate(tar, 1):
        if number > MOST_MEMBERS:
            raise tarfile.ReadError(f"the archive has more than {MOST_MEMBERS:,} members")
        name = member.name.removeprefix("./")
        if member.isreg() and name.startswith(beginning):
            _check_size(member)
            found[name] = member
    return sorted(found.items())


class _Member(tarfile.TarInfo):
    """A header that cannot make tarfile read without end, or much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or not member.isreg():
            _check_size(member)
        return member


def _check_size(member: tarfile.TarInfo) -> None:
    if not 0 <= member.size <= MOST_BYTES or member.issparse():
        raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes, and at most {MOST_BYTES} are read")
