"""Which model a rollback leads to, what it leaves unchanged, and when it does nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import pytest
from airflow.sdk.types import DagRunProtocol
from retraining.aws.clients import Aws
from retraining.aws.s3 import write
from retraining.config.pipeline import Pipeline
from retraining.deployment.rollback import choose, finish_rollback
from retraining.errors import DeploymentError, RollbackError, VerificationError
from retraining.runs.results import EndpointResult, RollbackChoice, RollbackResult

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import image_bytes
from tests.plugins.models import deploy, deployment_request, put_model, register_model

RESPONSE = '{"predictions": [{"class": "a", "probability": 1.0}]}'
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 50,
    "DestinationS3Uri": f"s3://{BUCKET}/rollback/captured",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}


@dataclass(frozen=True)
class Run:
    """What `choose` needs of a DAG run."""

    run_id: str
    run_after: datetime = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True)
class Version:
    """A model that was deployed."""

    config: str
    artifact: str
    package: str


@pytest.fixture
def own(pipeline: Pipeline, aws: Aws) -> Iterator[Pipeline]:
    """A pipeline of this test's own, whose updates are quick; its endpoint is gone after the test."""
    name = f"dogs_{uuid.uuid4().hex[:6]}"
    endpoint = pipeline.endpoint.model_copy(update={"name": None})
    deployment = pipeline.deployment.model_copy(update={"bake_seconds": 0})
    dataset = pipeline.dataset.model_copy(update={"prefix": None})
    own = pipeline.model_copy(
        update={"name": name, "endpoint": endpoint, "deployment": deployment, "dataset": dataset}
    )
    yield own
    if aws.sagemaker.list_endpoints(NameContains=own.endpoint_name)["Endpoints"]:
        aws.sagemaker.delete_endpoint(EndpointName=own.endpoint_name)


@pytest.fixture
def live(own: Pipeline, aws: Aws) -> Callable[..., Version]:
    """Deploys a version and registers it as one that is in service."""

    def put(number: int, response: str = RESPONSE) -> Version:
        config = f"{own.slug}-v{number}"
        artifact = put_model(aws.s3, f"rollback/{own.name}/{number}/model.tar.gz", response)
        request = deployment_request(config, own.endpoint_name, artifact, DataCaptureConfig=CAPTURE)
        deploy(request)
        package = register_model(aws, own.package_group, artifact, config)
        evaluation = f"s3://{BUCKET}/rollback/{own.name}/{number}/evaluation"
        write(aws.s3, f"{evaluation}/images/a/1.jpg", image_bytes())
        aws.sagemaker.update_model_package(
            ModelPackageArn=package, CustomerMetadataProperties={"evaluation": evaluation}
        )
        return Version(config, artifact, package)

    return put


def chosen(own: Pipeline, aws: Aws, run_id: str = "manual") -> RollbackChoice:
    return choose(own, aws, cast("DagRunProtocol", Run(run_id)))


def run(choice: RollbackChoice) -> EndpointResult:
    """Deploy the choice as the rollback DAG does."""
    return deploy(
        choice["deployment"],
        alarms=choice["alarms"],
        package=choice["package"],
        replaces=choice["replaces"],
        patience_seconds=0,
    )


def roll_back(own: Pipeline, aws: Aws, run_id: str) -> RollbackResult:
    choice = chosen(own, aws, run_id)
    return finish_rollback(own, choice, run(choice), aws, who="ann", why="confuses cats")


def status(aws: Aws, package: str) -> tuple[str, str]:
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    return described["ModelApprovalStatus"], described.get("ApprovalDescription", "")


def test_twice_goes_two_models_back_and_then_there_is_none(
    own: Pipeline, live: Callable[..., Version], aws: Aws
) -> None:
    first, second, third = live(1), live(2), live(3)

    result = roll_back(own, aws, "one")
    assert (result["target"]["package"], result["replaced"]["package"]) == (second.package, third.package)
    assert (result["images"], result["latency_ms"] is None) == (1, False)
    served = aws.sagemaker.describe_endpoint(EndpointName=own.endpoint_name)
    assert served["EndpointConfigName"] == result["config"]
    assert status(aws, third.package)[0] == "Rejected"
    assert "Rolled back by ann on 20" in status(aws, third.package)[1]
    assert "(confuses cats)" in status(aws, third.package)[1]

    repeated = roll_back(own, aws, "one")
    assert (repeated["config"], repeated["replaced"]) == (result["config"], result["replaced"])
    assert repeated["target"]["package"] == second.package

    config = aws.sagemaker.describe_endpoint_config(EndpointConfigName=result["config"])
    assert config["DataCaptureConfig"]["InitialSamplingPercentage"] == 50
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.m5.large"
    alarms = served["LastDeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert [alarm["AlarmName"] for alarm in alarms] == [
        f"{own.endpoint_name}-5xx",
        f"{own.endpoint_name}-latency",
    ]

    result = roll_back(own, aws, "two")
    assert result["target"]["artifact"] == first.artifact
    assert status(aws, second.package)[0] == "Rejected"
    with pytest.raises(RollbackError, match=f"no approved version.*Start {own.dag_id}"):
        chosen(own, aws, "three")


def test_an_endpoint_that_changed_meanwhile_is_left_alone(
    own: Pipeline, live: Callable[..., Version], aws: Aws
) -> None:
    live(1)
    live(2)
    found = chosen(own, aws)
    third = live(3)
    with pytest.raises(DeploymentError, match=f"runs {third.config}, not .*-v2 any more"):
        run(found)
    assert status(aws, third.package)[0] == "Approved"


def test_a_model_without_predictions_is_an_error_and_the_replaced_one_is_rejected_all_the_same(
    own: Pipeline, live: Callable[..., Version], aws: Aws
) -> None:
    live(1, "no JSON")
    second = live(2)
    with pytest.raises(VerificationError, match="gave no prediction"):
        roll_back(own, aws, "one")
    assert status(aws, second.package)[0] == "Rejected"


def test_a_deleted_archive_is_named(own: Pipeline, live: Callable[..., Version], aws: Aws) -> None:
    first = live(1)
    live(2)
    aws.s3.delete_object(Bucket=BUCKET, Key=first.artifact.removeprefix(f"s3://{BUCKET}/"))
    with pytest.raises(RollbackError, match=r"Version 1 of .* archive s3://.* was deleted"):
        chosen(own, aws)


def test_without_an_endpoint_there_is_nothing_to_roll_back(own: Pipeline, aws: Aws) -> None:
    with pytest.raises(RollbackError, match=f"is not there: start {own.dag_id}"):
        chosen(own, aws)
