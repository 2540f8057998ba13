"""What retiring deletes and what it keeps: real models, configurations, endpoints and folders."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.deployment.retire import retire
from retraining.registry.registry import reject
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_name, run_pattern

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import wait_for
from tests.plugins.models import deploy, deployment_request, put_model, register_model

KEEP = 2
RUNS = 6


@pytest.fixture
def own(pipeline: Pipeline) -> Pipeline:
    """A pipeline of this test's own, which keeps two of each kind."""
    kept = pipeline.retire.model_copy(update={"keep": KEEP})
    name = f"dogs_{uuid.uuid4().hex[:6]}"
    endpoint = pipeline.endpoint.model_copy(update={"name": None})
    return pipeline.model_copy(update={"name": name, "retire": kept, "endpoint": endpoint})


@pytest.fixture
def runs(own: Pipeline) -> list[str]:
    """Names of weekly runs, oldest first."""
    first = datetime(2026, 1, 5, tzinfo=UTC)
    return [run_name(own.slug, f"run {week}", first + timedelta(weeks=week)) for week in range(RUNS)]


@pytest.fixture
def requests(own: Pipeline, runs: list[str], aws: Aws) -> list[Any]:
    """Each run's deployment request, whose model and configuration exist."""
    made = []
    for run in runs:
        folder = f"retraining/{own.name}/{run}"
        artifact = put_model(aws.s3, f"{folder}/training/{run}/output/model.tar.gz", "woof")
        aws.s3.put_object(Bucket=BUCKET, Key=f"{folder}/evaluation/evaluation.json", Body=b"{}")
        request = deployment_request(
            run, own.endpoint_name, artifact, tags={"pipeline": own.name, "run": run}
        )
        aws.sagemaker.create_model(**request["Model"])
        aws.sagemaker.create_endpoint_config(**request["EndpointConfig"])
        made.append(request)
    return made


@pytest.fixture
def packages(own: Pipeline, runs: list[str], requests: list[Any], aws: Aws) -> list[str]:
    """Each run's version in the registry: two were live first, three were rejected, one is new."""
    arns = []
    for number, (run, request) in enumerate(zip(runs, requests, strict=True)):
        artifact = request["Model"]["PrimaryContainer"]["ModelDataUrl"]
        arns.append(register_model(aws, own.package_group, artifact, run if number < 2 else None))
    for arn in arns[2:-1]:
        reject(aws, arn, "worse")
    return arns


@pytest.fixture
def in_service(own: Pipeline, requests: list[Any], aws: Aws) -> Iterator[str]:
    """The pipeline's endpoint serves the second run's model, which replaced the first one's."""
    for request in requests[:2]:
        deploy(request)
    yield own.endpoint_name
    aws.sagemaker.delete_endpoint(EndpointName=own.endpoint_name)


@pytest.fixture
def elsewhere(own: Pipeline, runs: list[str], requests: list[Any], aws: Aws) -> str:
    """Somebody else's endpoint, which is being updated from the fourth run's configuration to the third's."""
    name = f"{own.slug}-elsewhere"
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=runs[3])
    aws.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
    routing: Any = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 20}
    aws.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=runs[2],
        DeploymentConfig={"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}},
    )
    return name


def folders(own: Pipeline, aws: Aws) -> set[str]:
    prefix = f"retraining/{own.name}/"
    listed = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return {entry["Key"].removeprefix(prefix).split("/")[0] for entry in listed.get("Contents", [])}


def test_what_is_old_and_unused_goes_and_nothing_else(
    own: Pipeline,
    runs: list[str],
    packages: list[str],
    in_service: str,
    aws: Aws,
) -> None:
    artifact = put_model(aws.s3, f"retire/{own.name}/model.tar.gz", "woof")
    name = run_name(own.slug, "other", datetime(2025, 1, 1, tzinfo=UTC))
    other = deployment_request(name, "other", artifact, tags={"pipeline": "another"})
    aws.sagemaker.create_model(**other["Model"])
    aws.s3.put_object(Bucket=BUCKET, Key=f"retraining/{own.name}/code/0123/sourcedir.tar.gz", Body=b"x")
    location = RunLocation(BUCKET, own.name, runs[-1])

    result = retire(own, location, aws)
    gone, stay = runs[2:4], [runs[5], runs[4], runs[1], runs[0]]
    assert sorted(result["models"]) == sorted(result["configs"]) == sorted(result["folders"]) == sorted(gone)
    assert sorted(result["packages"]) == sorted(packages[2:4])
    assert result["kept"]["models"] == result["kept"]["configs"] == result["kept"]["folders"] == stay
    assert folders(own, aws) == {*stay, "code"}
    assert aws.sagemaker.describe_model(ModelName=other["Model"]["ModelName"])
    for name in stay:
        assert aws.sagemaker.describe_endpoint_config(EndpointConfigName=name)
        assert aws.sagemaker.describe_model(ModelName=name)
    group = aws.sagemaker.list_model_packages(ModelPackageGroupName=own.package_group)
    left = {summary["ModelPackageArn"] for summary in group["ModelPackageSummaryList"]}
    assert left == {*packages[:2], *packages[4:]}

    again = retire(own, location, aws)
    assert [again["models"], again["configs"], again["folders"], again["packages"]] == [[], [], [], []]
    assert again["kept"] == result["kept"]


def test_what_an_endpoint_is_updated_from_and_to_stays(
    own: Pipeline, runs: list[str], elsewhere: str, aws: Aws
) -> None:
    location = RunLocation(BUCKET, own.name, runs[-1])
    moving = aws.sagemaker.describe_endpoint(EndpointName=elsewhere)
    assert moving["EndpointStatus"] == "Updating"
    result = retire(own, location, aws)
    assert sorted(result["configs"]) == sorted(result["folders"]) == sorted(runs[:2])
    assert result["kept"]["models"] == [runs[5], runs[4], runs[3], runs[2]]
    assert result["packages"] == []

    def rests() -> bool:
        return aws.sagemaker.describe_endpoint(EndpointName=elsewhere)["EndpointStatus"] == "InService"

    wait_for(rests, 120, "the update to end")
    result = retire(own, location, aws)
    assert result["folders"] == [runs[3]]
    aws.sagemaker.delete_endpoint(EndpointName=elsewhere)


def test_nothing_of_a_pipeline_that_never_ran(own: Pipeline, aws: Aws) -> None:
    result = retire(own, RunLocation(BUCKET, own.name, "none"), aws)
    assert result["kept"] == {"models": [], "configs": [], "folders": [], "packages": []}


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("dog-breed-2611220640-3fa9", True),
        ("dog-breed-2611220640-3fa9-r2", True),
        ("dog-breed-big-2611220640-3fa9", False),
        ("my-dog-breed-2611220640-3fa9", False),
        ("dog-breed", False),
        ("dog-breed-2611220640-3fa9-mine", False),
        ("code", False),
    ],
)
def test_only_names_of_the_pipelines_runs_match(name: str, matches: bool) -> None:
    assert bool(run_pattern("dog-breed").fullmatch(name)) is matches


def test_a_long_pipelines_runs_match_its_pattern() -> None:
    slug = "a-very-long-name-of-a-pipeline"
    assert run_pattern(slug).fullmatch(run_name(slug, "x", datetime.now(UTC)))
