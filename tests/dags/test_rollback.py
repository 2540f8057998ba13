"""The rollback DAG: as Airflow loads it, and as it runs against an endpoint that serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, Context
from airflow.serialization.serialized_objects import DagSerialization
from retraining.aws.clients import Aws
from retraining.operators.endpoint import EndpointOperator

from tests.dags.copies import LoadCopy, result, states
from tests.local_sagemaker.runtime_process import RuntimeProcess
from tests.plugins.models import deployment_request, put_model, register_model

ENDPOINT = "going-back"


@pytest.fixture(scope="module")
def rollback(dagbag: DagBag) -> DAG:
    return dagbag.dags["dog_breed_rollback"]


def test_one_click_by_hand_and_one_at_a_time(rollback: DAG) -> None:
    assert [task.task_id for task in rollback.topological_sort()] == ["choose", "deploy", "verify"]  # type: ignore[no-untyped-call]
    assert rollback.schedule is None
    assert rollback.max_active_runs == 1
    rollback.params.validate()
    assert all(rollback.params.get_param(name).description for name in rollback.params)


def test_it_is_documented_and_survives_serialisation(rollback: DAG) -> None:
    assert rollback.doc_md
    assert all(task.doc_md for task in rollback.tasks)
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(rollback))))
    assert again.get_task("deploy").operator_name == "SageMakerEndpointOperator"


@pytest.fixture
def versions(runtime: RuntimeProcess, database: None) -> Iterator[list[str]]:
    """Two models that were deployed one after the other; their versions in the registry."""
    aws = Aws()
    packages = []
    for number in (1, 2):
        config = f"{ENDPOINT}-rollback-v{number}"
        response = json.dumps({"predictions": [{"class": f"v{number}", "probability": 1}]})
        artifact = put_model(aws.s3, f"rollback-dag/{number}/model.tar.gz", response)
        request: Any = deployment_request(config, ENDPOINT, artifact)
        EndpointOperator(task_id="deploy", config=request, deferrable=False).execute(Context())
        packages.append(register_model(aws, ENDPOINT, artifact, config))
    yield packages
    for package in packages:
        aws.sagemaker.delete_model_package(ModelPackageName=package)
    aws.sagemaker.delete_endpoint(EndpointName=ENDPOINT)


@pytest.mark.end_to_end
@pytest.mark.timeout(300)
def test_a_run_goes_back_and_says_who_did_it(
    load_copy: LoadCopy, versions: list[str], runtime: RuntimeProcess
) -> None:
    aws = Aws()
    rollback = load_copy("going_back", {"deployment": {"bake_seconds": 1}})["going_back_rollback"]
    run = rollback.test(run_conf={"reason": "too slow"})
    assert set(states(run).values()) == {"success"}
    done = result(run, "verify")
    assert (done["target"]["package"], done["replaced"]["package"]) == (versions[0], versions[1])
    replaced = aws.sagemaker.describe_model_package(ModelPackageName=versions[1])
    assert replaced["ModelApprovalStatus"] == "Rejected"
    assert replaced["ApprovalDescription"].startswith("Rolled back by dag_test on ")
    assert "(too slow)" in replaced["ApprovalDescription"]
    body = aws.runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"?")["Body"].read()
    assert json.loads(body)["predictions"][0]["class"] == "v1"

    assert states(rollback.test())["choose"] == "failed"
