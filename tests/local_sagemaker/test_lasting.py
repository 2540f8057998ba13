"""Threads that others wait for: a full disk or a fault of ours does not leave a job in progress for ever."""

from __future__ import annotations

import errno
import sqlite3
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from local_sagemaker.lasting import attempt
from local_sagemaker.tuning import supervisor
from local_sagemaker.tuning.supervisor import Supervisor

TIMEOUT = 30.0


def raising(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), sqlite3.OperationalError("full"), KeyError("x")]
)
def test_a_step_that_fails_is_logged(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    assert not attempt(lambda: raising(error), "Polling")
    assert "Polling failed and is tried again" in caplog.text
    assert attempt(lambda: None, "Polling")


class Store:
    """A store whose first writes fail; `written` is set by the first that does not."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.job: dict[str, Any] = {"HyperParameterTuningJobStatus": "InProgress"}
        self.written = threading.Event()

    def update(self, _kind: str, _name: str, change: Any) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError("database or disk is full")
        change(self.job)
        self.written.set()
        return self.job


class Tuning:
    """A tuning job whose first step raises `error`, `times` times."""

    def __init__(self, error: Exception, times: int, store: Store) -> None:
        self.error, self.times, self.store = error, times, store

    def adopt(self) -> None:
        if self.times:
            self.times -= 1
            raise self.error

    def advance(self) -> bool:
        self.store.update("", "", lambda job: job.update(HyperParameterTuningJobStatus="Completed"))
        return True


@pytest.mark.parametrize(
    ("error", "times", "status"),
    [(OSError(errno.ENOSPC, "full"), 1, "Completed"), (KeyError("a fault"), 1, "Failed")],
)
def test_a_tuning_job_ends_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, error: Exception, times: int, status: str
) -> None:
    store = Store(failures=1)
    tuning = Tuning(error, times, store)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "TuningJob", lambda *_: tuning)
    thread = Supervisor(SimpleNamespace(store=store, clock=lambda: 1.0), SimpleNamespace(), "name")  # type: ignore[arg-type]
    thread.start()
    assert store.written.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert store.job["HyperParameterTuningJobStatus"] == status
