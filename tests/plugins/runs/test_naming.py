"""Names that follow from the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from retraining.runs.naming import TUNING_JOB_LIMIT, attempt_name, run_name, run_stamp

WHEN = datetime(2026, 11, 22, 6, 40, tzinfo=UTC)


def test_the_same_run_has_the_same_name() -> None:
    name = run_name("dog-breed", "manual__1", WHEN)
    assert name == run_name("dog-breed", "manual__1", WHEN.astimezone(timezone(timedelta(hours=5))))
    assert name != run_name("dog-breed", "manual__2", WHEN)
    assert name.startswith("dog-breed-2611220640-")
    assert len(name) == len("dog-breed-2611220640-3fa9")


def test_the_stamp_of_a_run_sorts() -> None:
    name = run_name("dog-breed", "manual__1", WHEN)
    assert run_stamp(name) == run_stamp(f"{name}-r2") == "2611220640"
    assert run_stamp("something-else") == ""


@pytest.mark.parametrize("slug", ["a", "dog-breed", "a-very-long-name-of-a-pipeline", "fourteen-chars-x"])
def test_every_attempt_fits_a_tuning_job(slug: str) -> None:
    name = run_name(slug, "scheduled__2026", WHEN)
    assert len(attempt_name(name, 9, TUNING_JOB_LIMIT)) <= TUNING_JOB_LIMIT


def test_attempts_are_counted() -> None:
    assert [attempt_name("job", n) for n in (1, 2, 3)] == ["job", "job-r2", "job-r3"]


@pytest.mark.parametrize("name", ["x" * 31, "dog_breed", "-a", "a-"])
def test_names_that_sagemaker_refuses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no SageMaker name"):
        attempt_name(name, 2 if len(name) == 31 else 1, TUNING_JOB_LIMIT)
