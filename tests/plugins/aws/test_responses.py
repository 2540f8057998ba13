"""AWS responses as JSON, those of missing things, and the comparison of what exists with what is wanted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from retraining.aws.clients import Aws
from retraining.aws.responses import as_json, contains, is_missing, member, or_none

RESPONSE = {
    "TrainingJobName": "job",
    "TrainingStartTime": datetime(2026, 11, 22, 6, 40, tzinfo=UTC),
    "Transitions": [{"StartTime": datetime(2026, 11, 22, tzinfo=UTC)}],
    "ResponseMetadata": {"HTTPStatusCode": 200},
}


def test_times_become_text_and_the_http_part_goes() -> None:
    assert json.loads(json.dumps(as_json(RESPONSE))) == {
        "TrainingJobName": "job",
        "TrainingStartTime": "2026-11-22T06:40:00+00:00",
        "Transitions": [{"StartTime": "2026-11-22T00:00:00+00:00"}],
    }


@pytest.mark.parametrize(
    ("actual", "wanted", "expected"),
    [
        ({"a": "1", "default": "x"}, {"a": "1"}, True),
        ({"a": "2"}, {"a": "1"}, False),
        ({"a": [{"n": 2}, {"n": 1, "default": 0}]}, {"a": [{"n": 1}, {"n": 2}]}, True),
        ({"a": [{"n": 1}]}, {"a": [{"n": 1}, {"n": 2}]}, False),
        (None, {"a": 1}, False),
        (None, None, True),
    ],
)
def test_what_the_service_adds_makes_no_difference(actual: Any, wanted: Any, expected: bool) -> None:
    assert contains(actual, wanted) is expected


def test_members_are_found_by_path() -> None:
    assert member({"a": {"b": 1}}, "a", "b") == 1
    assert member({"a": None}, "a", "b") is None


def test_what_does_not_exist_is_none_and_other_errors_are_errors(aws: Aws) -> None:
    endpoint = or_none(lambda: aws.sagemaker.describe_endpoint(EndpointName="nobody-has-this"))
    job = or_none(lambda: aws.sagemaker.describe_training_job(TrainingJobName="nobody-has-this"))
    assert (endpoint, job, or_none(lambda: 1)) == (None, None, 1)
    with pytest.raises(ClientError) as caught:
        or_none(lambda: aws.s3.get_object(Bucket="nobody-has-this", Key="key"))
    assert not is_missing(caught.value)
