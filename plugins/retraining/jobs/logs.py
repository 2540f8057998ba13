"""A job's log, followed in CloudWatch Logs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

TRAINING_JOBS = "/aws/sagemaker/TrainingJobs"
PROCESSING_JOBS = "/aws/sagemaker/ProcessingJobs"


@dataclass
class LogTail:
    """Reads what came since the last time, from every stream of a group whose name starts with `prefix`."""

    client: CloudWatchLogsClient
    group: str
    prefix: str
    _tokens: dict[str, str | None] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The new lines, stream by stream. None while the group or the streams do not exist yet."""
        try:
            streams = self.client.describe_log_streams(
                logGroupName=self.group, logStreamNamePrefix=self.prefix
            )
            for stream in streams["logStreams"]:
                yield from self._new_lines(stream["logStreamName"])
        except self.client.exceptions.ResourceNotFoundException:
            return

    def _new_lines(self, stream: str) -> Iterator[str]:
        while True:
            token = self._tokens.get(stream)
            place = {"nextToken": token} if token else {}
            answer = self.client.get_log_events(
                logGroupName=self.group,
                logStreamName=stream,
                startFromHead=True,
                **place,  # type: ignore[arg-type]
            )
            for event in answer["events"]:
                yield event["message"]
            self._tokens[stream] = answer["nextForwardToken"]
            if not answer["events"]:
                return
