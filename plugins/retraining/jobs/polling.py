"""How often the tasks ask SageMaker for news: the only place with intervals."""

from __future__ import annotations

import time
from collections.abc import Iterator

ENDPOINT_SECONDS = 2.0
"""Between two polls of an endpoint or its alarms, whose traffic may shift within seconds."""
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 10.0
"""Between two polls of a job: the first, growing by a second for every minute that passes, to the longest."""


def job_polls() -> Iterator[float]:
    """Yield the seconds that have passed at each poll of a job, at once and then after each pause."""
    started = time.monotonic()
    while True:
        passed = time.monotonic() - started
        yield passed
        time.sleep(min(FIRST_SECONDS + passed / 60, LONGEST_SECONDS))


def endpoint_polls() -> Iterator[float]:
    """The same for an endpoint, at an even pace."""
    started = time.monotonic()
    while True:
        yield time.monotonic() - started
        time.sleep(ENDPOINT_SECONDS)
