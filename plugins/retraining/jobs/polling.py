"""How often SageMaker is asked for news: the only place with intervals."""

from __future__ import annotations

ENDPOINT_SECONDS = 2.0
"""Between two polls of an endpoint or its alarms, whose traffic may shift within seconds."""
LAST_LINES_SECONDS = 1.0
"""From a job's end to the last look at its log: the last lines reach CloudWatch a little later."""
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 10.0
"""Between two polls of a job: the first, growing by a second for every minute that passes, to the longest."""


def job_pause(passed: float) -> float:
    """Seconds to the next poll of a job that has been followed for `passed` seconds."""
    return min(FIRST_SECONDS + passed / 60, LONGEST_SECONDS)
