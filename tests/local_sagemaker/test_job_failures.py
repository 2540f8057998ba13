"""Failure reasons, from logs of scripts and of AWS's toolkit."""

from __future__ import annotations

import pytest
from local_sagemaker.jobs.failures import LIMIT, failure_reason, last_exception
from local_sagemaker.processes import LOST

FAILURE_FILE = 'ExecuteUserScriptError:\nExitCode 1\nErrorMessage ""\nCommand "/bin/python train.py --lr 0.1"'
TOOLKIT = [
    "2026-01-01 10:00:00,123 sagemaker-training-toolkit ERROR    Reporting training FAILURE",
    "2026-01-01 10:00:00,123 sagemaker-training-toolkit ERROR    ExecuteUserScriptError:",
    "ExitCode 1",
    'ErrorMessage ""',
    'Command "/bin/python train.py --lr 0.1"',
    "2026-01-01 10:00:00,123 sagemaker-training-toolkit ERROR    Encountered exit_code 1",
]
CHAINED = """\
epoch=1 loss=0.5
Traceback (most recent call last):
  File "train.py", line 3, in load
    open(path)
FileNotFoundError: [Errno 2] No such file or directory: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "train.py", line 9, in <module>
    main()
    ~~~~^^
DataError: class folder 'cats' is empty
add images to it""".splitlines()
WORKER = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    main()
RuntimeError: Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 1, in fetch
OSError: broken data stream when reading image file""".splitlines()


def test_the_script_s_exception_fills_the_empty_message() -> None:
    reason = failure_reason(1, FAILURE_FILE, [*CHAINED, *TOOLKIT])
    assert reason == (
        "AlgorithmError: ExecuteUserScriptError:\nExitCode 1\n"
        "ErrorMessage \"DataError: class folder 'cats' is empty\nadd images to it\"\n"
        'Command "/bin/python train.py --lr 0.1", exit code: 1'
    )


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (
            ['  File "train.py", line 1', "    def broken(:", "SyntaxError: invalid syntax"],
            "SyntaxError: invalid syntax",
        ),
        (
            ["usage: train.py [-h]", "train.py: error: unrecognized arguments: --x"],
            "train.py: error: unrecognized arguments: --x",
        ),
        (
            ["ERROR: No matching distribution found for nothing==9", "[notice] a new pip"],
            "ERROR: No matching distribution found for nothing==9",
        ),
        (["loading", "Killed", ""], "Killed"),
        ([], ""),
    ],
)
def test_without_a_traceback_the_line_that_mentions_an_error_is_used(log: list[str], expected: str) -> None:
    assert last_exception([*log, *TOOLKIT]) == expected


def test_an_exception_from_a_worker_keeps_both_ends() -> None:
    text = last_exception([*WORKER, *TOOLKIT])
    assert text.startswith("RuntimeError: Caught OSError in DataLoader worker process 0.")
    assert text.endswith("OSError: broken data stream when reading image file")


def test_exceptions_that_python_ignores_do_not_count() -> None:
    ignored = ["Exception ignored in atexit callback: f", "Traceback (most recent call last):", "OSError"]
    assert last_exception([*CHAINED, *ignored, *TOOLKIT]).startswith("DataError: class folder 'cats'")


def test_long_messages_fit_and_keep_both_ends() -> None:
    message = "ValueError: start " + "x" * 5000 + " end"
    reason = failure_reason(
        1, FAILURE_FILE, ["Traceback (most recent call last):", "  File", message, *TOOLKIT]
    )
    assert len(reason) <= LIMIT
    assert "ValueError: start" in reason
    assert " end" in reason
    assert reason.endswith(", exit code: 1")


def test_a_failure_file_of_the_script_is_the_reason() -> None:
    assert failure_reason(3, "no labels", CHAINED) == "AlgorithmError: no labels, exit code: 3"


def test_an_error_of_the_toolkit_starts_with_its_message() -> None:
    trace = (
        "Framework Error: \nTraceback (most recent call last):\n"
        + '  File "x.py"\n' * 200
        + "KeyError: 'hosts'"
    )
    reason = failure_reason(1, trace, [])
    assert reason.startswith("AlgorithmError: Framework Error: KeyError: 'hosts'\nTraceback")
    assert len(reason) <= LIMIT


def test_a_killed_container_has_a_reason_of_its_own() -> None:
    assert "SIGKILL" in failure_reason(137, "", ["epoch=1"])


def test_a_lost_process_is_an_internal_error() -> None:
    assert failure_reason(LOST, "", []).startswith("InternalServerError: ")
