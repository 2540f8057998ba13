"""What a run's model is compared with, and which configuration it will replace."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.aws.s3 import split_uri
from retraining.errors import CandidateError
from retraining.evaluation.champion import find_candidates
from retraining.registry.registry import reject

from tests.dags.airflow_home import BUCKET
from tests.plugins.models import deploy, deployment_request, put_model, register_model


@pytest.fixture
def served(aws: Aws) -> Iterator[Any]:
    """The request of a finished deployment; the endpoint has the same name as its configuration."""
    name = f"candidates-{uuid.uuid4().hex[:8]}"
    request = deployment_request(name, name, put_model(aws.s3, f"candidates/{name}/model.tar.gz"))
    deploy(request)
    yield request
    aws.sagemaker.delete_endpoint(EndpointName=name)


def test_a_rejected_model_in_service_is_no_champion_but_is_replaced(served: Any, aws: Aws) -> None:
    name = served["Endpoint"]["EndpointName"]
    artifact = served["Model"]["PrimaryContainer"]["ModelDataUrl"]
    challenger = f"s3://{BUCKET}/candidates/{name}/challenger/model.tar.gz"
    arn = register_model(aws, name, artifact, name)

    found = find_candidates(challenger, name, name, aws)
    assert found == {
        "challenger": challenger,
        "champion": {"endpoint": name, "config": name, "model": name, "artifact": artifact, "package": arn},
        "replaces": name,
    }
    reject(aws, arn, "Its predictions differ from the evaluation's.")
    found = find_candidates(challenger, name, name, aws)
    assert found == {"challenger": challenger, "champion": None, "replaces": name}


def test_a_deleted_archive_of_the_champion_is_an_error(served: Any, aws: Aws) -> None:
    name = served["Endpoint"]["EndpointName"]
    _, key = split_uri(served["Model"]["PrimaryContainer"]["ModelDataUrl"])
    aws.s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(CandidateError, match=rf"serves {name}, whose model s3://.*{key} is no longer in S3"):
        find_candidates("s3://any/model.tar.gz", name, name, aws)


def test_without_an_endpoint_there_is_neither(aws: Aws) -> None:
    found = find_candidates("s3://any/model.tar.gz", "no-such-endpoint", "no-such-group", aws)
    assert (found["champion"], found["replaces"]) == (None, None)
