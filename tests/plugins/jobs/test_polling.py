"""Pauses between polls of a job."""

from __future__ import annotations

from itertools import accumulate, repeat

from retraining.jobs.polling import FIRST_SECONDS, LONGEST_SECONDS, job_pause


def test_pauses_grow_with_the_job_up_to_a_limit() -> None:
    times = list(accumulate(repeat(0.0, 200), lambda passed, _: passed + job_pause(passed)))
    pauses = [job_pause(passed) for passed in times]
    assert pauses[0] == FIRST_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_SECONDS
