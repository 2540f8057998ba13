"""The logs of rules in CloudWatch Logs: one stream per rule, as on AWS, where each has a processing job."""

from __future__ import annotations

from collections.abc import Sequence

from local_sagemaker.debugging import statuses
from local_sagemaker.debugging.processes import Evaluator, status_line
from local_sagemaker.logs import CloudWatchLogs, LogEvent, LogFollower
from local_sagemaker.processing.job_document import PROCESSING_JOB
from local_sagemaker.store import Document


def follower(job: Document, evaluator: Evaluator, logs: CloudWatchLogs) -> LogFollower:
    """Sends an evaluator's log to the streams of its rules, starting with what its journal has.

    A line on the status of one rule goes to that rule's stream, any other line to all streams.
    """
    streams = {rule: log_stream(job, rule) for rule in evaluator.rules}

    def put(events: Sequence[LogEvent]) -> None:
        for rule, stream in streams.items():
            others = tuple(status_line(other) for other in streams if other != rule)
            logs.put(
                PROCESSING_JOB.log_group,
                stream,
                [event for event in events if not event.message.startswith(others)],
            )

    return LogFollower(evaluator.log, evaluator.journal, put)


def log_stream(job: Document, rule: str) -> str:
    """The stream of a rule's processing job, named as those of other processing jobs."""
    return f"{statuses.job_name(job, rule)}/algo-1-{int(job['CreationTime'])}"
