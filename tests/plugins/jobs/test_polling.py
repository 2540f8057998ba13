"""Polls of jobs and endpoints, without waiting for them."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from retraining.jobs import polling


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which pass at once."""
    pauses: list[float] = []
    monkeypatch.setattr("retraining.jobs.polling.time.monotonic", lambda: sum(pauses))
    monkeypatch.setattr("retraining.jobs.polling.time.sleep", pauses.append)
    return pauses


def test_pauses_grow_with_the_job_up_to_a_limit(clock: list[float]) -> None:
    passed = list(islice(polling.job_polls(), 200))
    assert passed[0] == 0
    assert clock[0] == polling.FIRST_SECONDS
    assert all(earlier <= later for earlier, later in pairwise(clock))
    assert clock[-1] == polling.LONGEST_SECONDS
    assert passed[-1] == sum(clock)


def test_an_endpoint_is_polled_at_an_even_pace(clock: list[float]) -> None:
    assert list(islice(polling.endpoint_polls(), 3)) == [
        0,
        polling.ENDPOINT_SECONDS,
        2 * polling.ENDPOINT_SECONDS,
    ]
