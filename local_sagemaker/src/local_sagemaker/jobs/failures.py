"""Why a job failed, from its script's own exception: the FailureReason of the Describe operations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from local_sagemaker.processes import LOST

LIMIT = 1024  # characters of a FailureReason

_EMPTY_MESSAGE = 'ErrorMessage ""'  # the toolkit leaves it empty, as the output goes straight to the log
_MESSAGE_LIMIT = 700  # leaves room for the rest of the reason
_TOOLKIT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ sagemaker[-_]training")
_ERROR_LINE = re.compile(r"(?i)^[\w.]*(error|exception|interrupt|exit)\b.*")
_TRACEBACK = "Traceback (most recent call last):"
_IGNORED = "Exception ignored in"  # from __del__ and atexit, where Python goes on
_KILLED = 137  # 128 + SIGKILL


class JobFailedError(Exception):
    """The job has failed; the text becomes its FailureReason."""


def failure_reason(exit_code: int, failure: str, log: Sequence[str]) -> str:
    """The FailureReason of a container's `exit_code`; `failure` is the text of /opt/ml/output/failure."""
    if exit_code == LOST:
        return (
            "InternalServerError: The job's process ended without an exit code: the machine went down, or "
            "something killed it. Create the job again; with a CheckpointConfig it resumes from its "
            "checkpoints."
        )
    reason = failure.strip() or _without_failure_file(exit_code, log)
    if _EMPTY_MESSAGE in reason:
        reason = reason.replace(_EMPTY_MESSAGE, f'ErrorMessage "{last_exception(log)}"', 1)
    elif reason.startswith("Framework Error"):
        reason = (
            f"Framework Error: {last_exception(reason.splitlines())}\n{reason.partition(chr(10))[2].lstrip()}"
        )
    suffix = f", exit code: {exit_code}"
    return f"AlgorithmError: {reason}"[: LIMIT - len(suffix)] + suffix


def _without_failure_file(exit_code: int, log: Sequence[str]) -> str:
    if exit_code == _KILLED:
        return (
            "The container was killed (SIGKILL), most often for lack of memory. Use a smaller batch "
            "or fewer data loader workers, or run fewer jobs at once"
        )
    return last_exception(log)


def last_exception(log: Sequence[str]) -> str:
    """Type and message of the exception that ended a Python script, from its log, shortened in the middle.

    Without a traceback (a syntax error, argparse, pip): the last line that mentions an error, else the last
    line.
    """
    lines = _script_lines(log)
    text = _after_frames(_last_traceback(lines))
    if not text:
        errors = [line for line in lines if _ERROR_LINE.match(line)]
        errors = errors or [line for line in lines if "error" in line.lower()]
        text = (errors or [line for line in lines if line.strip()] or [""])[-1]
    return _shortened(text.strip())


def _script_lines(log: Sequence[str]) -> list[str]:
    """The log without the toolkit's own lines and its report after the script's end."""
    lines = list(log)
    for index, line in enumerate(lines):
        if _TOOLKIT_LINE.match(line) and "Reporting training FAILURE" in line:
            lines = lines[:index]
            break
    return [line for line in lines if not _TOOLKIT_LINE.match(line)]


def _last_traceback(lines: Sequence[str]) -> list[str]:
    """The lines of the last traceback, without tracebacks of exceptions that Python ignored."""
    starts = [
        index
        for index, line in enumerate(lines)
        if line.startswith(_TRACEBACK) and not (index and lines[index - 1].startswith(_IGNORED))
    ]
    if not starts:
        return []
    following = lines[starts[-1] + 1 :]
    return list(itertools.takewhile(lambda line: not line.startswith(_IGNORED), following))


def _after_frames(lines: Sequence[str]) -> str:
    """The message below a traceback's indented frames; it can have several lines."""
    for index, line in enumerate(lines):
        if line and not line[0].isspace():
            return "\n".join(lines[index:])
    return ""


def _shortened(text: str) -> str:
    if len(text) <= _MESSAGE_LIMIT:
        return text
    half = (_MESSAGE_LIMIT - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
