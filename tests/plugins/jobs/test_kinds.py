"""What descriptions of jobs say."""

from __future__ import annotations

from datetime import UTC, datetime

from retraining.jobs.kinds import TRAINING

DESCRIPTION = {"TrainingStartTime": datetime(2026, 11, 22, 6, 40, tzinfo=UTC)}


def test_seconds_need_both_times() -> None:
    ended = {**DESCRIPTION, "TrainingEndTime": datetime(2026, 11, 22, 6, 41, tzinfo=UTC)}
    assert TRAINING.seconds(ended) == 60.0
    assert TRAINING.seconds(DESCRIPTION) is None
