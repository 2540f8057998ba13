"""What a run compares itself with, and what it is going to replace."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.sdk import Context
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.evaluation.champion import evaluation_request
from retraining.operators.declared import EndpointOperator
from retraining.registry.registry import rejected

from tests.dags.airflow_home import BUCKET
from tests.plugins.models import deployment_request, put_model, register_model

PLANNED: dict[str, Any] = {
    "AppSpecification": {"ContainerArguments": []},
    "ProcessingInputs": [],
    "ProcessingOutputConfig": {"Outputs": [{"S3Output": {"S3Uri": f"s3://{BUCKET}/candidates"}}]},
}


@pytest.fixture
def served(aws: Aws) -> Iterator[dict[str, Any]]:
    """The request of a deployment that was done; its name is that of the endpoint, too."""
    name = f"candidates-{uuid.uuid4().hex[:8]}"
    request = deployment_request(name, name, put_model(aws.s3, f"candidates/{name}/model.tar.gz"))
    EndpointOperator(task_id="deploy", config=request).execute(Context())
    yield request
    aws.sagemaker.delete_endpoint(EndpointName=name)


def test_a_rejected_model_in_service_is_no_champion_but_is_replaced(
    served: dict[str, Any], pipeline: Pipeline, aws: Aws
) -> None:
    name = served["Endpoint"]["EndpointName"]
    ours = pipeline.model_copy(update={"model_package_group": name})
    arn = register_model(aws, name, served["Model"]["PrimaryContainer"]["ModelDataUrl"], name)
    training = {"model_artifact": f"s3://{BUCKET}/candidates/{name}/challenger/model.tar.gz"}

    found = evaluation_request(PLANNED, served, training, ours, aws)
    assert (found["champion"]["package"], found["replaces"]) == (arn, name)
    rejected(aws, arn, "It answers otherwise than the evaluation did.")
    found = evaluation_request(PLANNED, served, training, ours, aws)
    assert (found["champion"], found["replaces"]) == (None, name)
    assert "--champion" not in found["request"]["AppSpecification"]["ContainerArguments"]


def test_without_an_endpoint_there_is_neither(pipeline: Pipeline, aws: Aws) -> None:
    deployment = {"Endpoint": {"EndpointName": "no-such-endpoint"}}
    training = {"model_artifact": "s3://any/model.tar.gz"}
    found = evaluation_request(PLANNED, deployment, training, pipeline, aws)
    assert (found["champion"], found["replaces"]) == (None, None)
