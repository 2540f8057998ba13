"""Which errors count as a full disk."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from local_sagemaker.errors import is_disk_full


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_LOCKED), False),
        (ValueError("disk is full"), False),
    ],
)
def test_a_full_disk_and_an_exceeded_quota_are_recognised(error: BaseException, full: bool) -> None:
    assert is_disk_full(error) is full
