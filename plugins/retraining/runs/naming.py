"""Names that follow from the run, so that a retry asks for the same job and finds it."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

TUNING_JOB_LIMIT = 32  # HyperParameterTuningJobName
NAME_LIMIT = 63  # every other SageMaker name
RUN_ID_TAG = "run-id"
"""Key of the tag with which a run's resources name its DAG run."""
ATTEMPT_LIMIT = 9
"""Attempts that a run makes at a job or a model, and so the number of names to look for."""
_STAMP_AND_HASH = 1 + 10 + 1 + 4
_ATTEMPT = len(f"-r{ATTEMPT_LIMIT}")
_ENDING = r"-(?P<stamp>\d{10})-[0-9a-f]{4}(-r[1-9]\d*)?"


def run_name(slug: str, run_id: str, when: datetime) -> str:
    """`<slug>-<yymmddhhmm>-<4 hex of the run id>`, short enough for a tuning job and its later attempts.

    `when` is the time that the DAG run is for (UTC); a long slug is cut.
    """
    stamp = when.astimezone(UTC).strftime("%y%m%d%H%M")
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:4]
    return f"{run_beginning(slug)}-{stamp}-{digest}"


def run_pattern(slug: str) -> re.Pattern[str]:
    """Matches what `run_name` and `attempt_name` make for a pipeline; their group `stamp` sorts by time."""
    return re.compile(re.escape(run_beginning(slug)) + _ENDING, re.ASCII)


def run_stamp(name: str) -> str:
    """The time in a run's name, which sorts; empty for a name that `run_name` did not make."""
    found = re.search(f"{_ENDING}$", name, re.ASCII)
    return found["stamp"] if found else ""


def attempt_name(name: str, attempt: int, limit: int = NAME_LIMIT) -> str:
    """The name of a job's n-th attempt: the name itself, then `<name>-r2`, `<name>-r3`, ...

    Raises ValueError for a name that would exceed the service's limit.
    """
    result = name if attempt == 1 else f"{name}-r{attempt}"
    if len(result) > limit or not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", result):
        raise ValueError(f"{result!r} is no SageMaker name of at most {limit} letters, digits and hyphens")
    return result


def run_beginning(slug: str) -> str:
    """What the names of a pipeline's runs begin with: as much of the slug as there is room for."""
    return slug[: TUNING_JOB_LIMIT - _STAMP_AND_HASH - _ATTEMPT].rstrip("-")
