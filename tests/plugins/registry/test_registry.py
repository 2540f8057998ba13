"""The model registry: one version a run, its status and its metadata, and which versions were live."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.aws.s3 import read_json, write
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Gate
from retraining.evaluation.gate import decide
from retraining.registry.registry import (
    mark_live,
    package_of,
    previous_live,
    register,
    reject,
    set_approval,
)
from retraining.runs.results import PackageResult

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import INFERENCE_IMAGE
from tests.plugins.evaluations import NO_RULES, evaluation_document
from tests.plugins.models import put_version

CHAMPION = {"a.Akita": 6, "b.Boxer": 6}
RULE = {"rule": "Overfit", "policy": "warn", "verdict": "warning", "status": "IssuesFound", "step": 12}
REGISTRY = f"s3://{BUCKET}/registry"

Register = Callable[..., PackageResult]


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def ours(pipeline: Pipeline, group: str) -> Pipeline:
    return Pipeline.model_validate({**pipeline.model_dump(), "model_package_group": group})


@pytest.fixture
def artifact(aws: Aws, group: str) -> str:
    return write(aws.s3, f"{REGISTRY}/{group}/model.tar.gz", b"a model")


def results(
    artifact: str,
    *,
    right: int = 10,
    approval: bool = False,
    ask: str | None = None,
    dataset: str = f"s3://{BUCKET}/datasets/dog_breed",
) -> Any:
    """The results before `register`, for a challenger that predicts so many of 20 images correctly."""
    document = evaluation_document({"a.Akita": right // 2, "b.Boxer": right // 2}, CHAMPION)
    return {
        "plan": {
            "run": {
                "name": "dog-breed-2611220640-3fa9",
                "run_id": "manual__2026-11-22T06:40:00+00:00",
                "pipeline": "dog_breed",
                "output": artifact.removesuffix("/model.tar.gz"),
                "code": f"s3://{BUCKET}/retraining/dog_breed/code/0123456789abcdef/sourcedir.tar.gz",
                "dataset": {"uri": dataset, "digest": "5e" * 32},
                "fingerprint": {"code": "0123", "data": "5e"},
                "approval": approval,
            },
            "deployment": {
                "Model": {"PrimaryContainer": {"Image": INFERENCE_IMAGE, "Environment": {"A": "b"}}}
            },
        },
        "tuning": {"job": "dog-breed-2611220640-3fa9"},
        "training": {
            "job": "dog-breed-2611220640-3fa9",
            "arn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/x",
            "model_artifact": artifact,
            "hyperparameters": {"lr": "0.034", "epochs": "7", "sagemaker_program": "train.py"},
        },
        "evaluation": {
            "job": "dog-breed-2611220640-3fa9",
            "output": artifact.replace("model.tar.gz", "evaluation"),
            "champion": {"package": None, "artifact": f"s3://{BUCKET}/old/model.tar.gz"},
        },
        "debugger": {**NO_RULES, "rules": [RULE]},
        "gate": {**decide(Gate(), document, NO_RULES), "ask": ask},
    }


@pytest.fixture
def put(ours: Pipeline, aws: Aws, artifact: str) -> Register:
    """Run the task `register`."""

    def run(training: Any = None, **of: Any) -> PackageResult:
        given = results(artifact, **of)
        write(aws.s3, f"{given['evaluation']['output']}/model_quality.json", b"{}")
        given["training"] = training or given["training"]
        return register(ours, given, aws)

    return run


def described(aws: Aws, arn: str) -> Any:
    return aws.sagemaker.describe_model_package(ModelPackageName=arn)


def versions(aws: Aws, group: str) -> int:
    return len(aws.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"])


def test_a_version_says_where_it_came_from(put: Register, aws: Aws, group: str, artifact: str) -> None:
    package = put(right=16)
    assert (package["group"], package["version"], package["status"]) == (group, 1, "Approved")
    version = described(aws, package["arn"])
    metadata = version["CustomerMetadataProperties"]
    assert metadata["run"] == "dog-breed-2611220640-3fa9"
    assert metadata["run-id"] == "manual__2026-11-22T06:40:00+00:00"
    assert metadata["data-digest"] == "5e" * 32
    assert metadata["hyperparameter:lr"] == "0.034"
    assert "hyperparameter:sagemaker_program" not in metadata
    assert metadata["accuracy"] == "0.800000"
    assert metadata["champion-accuracy"] == "0.600000"
    assert metadata["improvement"] == "0.200000"
    assert metadata["champion"] == f"s3://{BUCKET}/old/model.tar.gz"
    assert len(metadata["fingerprint"]) == 64
    assert read_json(aws.s3, metadata["rules"])["rules"] == [RULE]
    assert version["MetadataProperties"]["CommitId"] == "0123456789abcdef"
    assert version["MetadataProperties"]["GeneratedBy"].endswith("training-job/x")
    container = version["InferenceSpecification"]["Containers"][0]
    assert (container["ModelDataUrl"], container["Environment"]) == (artifact, {"A": "b"})
    assert version["ApprovalDescription"].startswith("The challenger goes live: accuracy 0.800")
    assert "image/jpeg" in version["InferenceSpecification"]["SupportedContentTypes"]


@pytest.mark.parametrize(
    ("right", "approval", "status"),
    [
        (16, False, "Approved"),
        (16, True, "PendingManualApproval"),
        (8, False, "Rejected"),
        (8, True, "Rejected"),
    ],
)
def test_the_gate_and_the_wish_for_approval_give_the_status(
    put: Register, right: int, approval: bool, status: str
) -> None:
    assert put(right=right, approval=approval)["status"] == status


def test_a_model_that_a_person_has_to_approve_waits(put: Register) -> None:
    assert (
        put(right=16, ask="it lacks a class of the champion (d.Dingo)")["status"] == "PendingManualApproval"
    )


def test_registering_again_is_the_same_version(put: Register, aws: Aws, group: str) -> None:
    first = put(right=16)
    assert put(right=16) == first
    assert versions(aws, group) == 1


def test_a_gate_that_decides_otherwise_changes_the_status(put: Register, aws: Aws, group: str) -> None:
    assert put(right=16)["status"] == "Approved"
    again = put(right=8)
    assert (again["version"], again["status"]) == (1, "Rejected")
    assert "stays out" in described(aws, again["arn"])["ApprovalDescription"]
    assert put(right=16, approval=True)["status"] == "PendingManualApproval"
    assert versions(aws, group) == 1


def test_a_persons_decision_stays_when_the_task_runs_again(put: Register, aws: Aws) -> None:
    package = put(right=16, approval=True)
    set_approval(aws, package["arn"], approved=True, sentence="Approved by Ada.")
    assert put(right=16, approval=True)["status"] == "Approved"
    assert described(aws, package["arn"])["ApprovalDescription"] == "Approved by Ada."


def test_a_rejection_that_is_not_the_gates_stays_when_the_task_runs_again(put: Register, aws: Aws) -> None:
    package = put(right=16)
    reject(aws, package["arn"], "The endpoint was rolled back.\n  Twice.")
    assert put(right=16)["status"] == "Rejected"
    assert put(right=18)["status"] == "Rejected"
    assert described(aws, package["arn"])["ApprovalDescription"] == "The endpoint was rolled back. Twice."


def test_a_rejected_version_that_serves_well_after_all_is_approved(put: Register, aws: Aws) -> None:
    package = put(right=16)
    reject(aws, package["arn"], "The endpoint was rolled back.")
    mark_live(aws, package["arn"], datetime.now(UTC), "config-1")
    version = described(aws, package["arn"])
    assert version["ModelApprovalStatus"] == "Approved"
    assert version["CustomerMetadataProperties"]["live-config"] == "config-1"


def test_a_model_trained_anew_is_a_version_of_its_own(put: Register, aws: Aws, group: str) -> None:
    put(right=16)
    other = write(aws.s3, f"{REGISTRY}/{group}/second/model.tar.gz", b"another model")
    assert put(training=results(other)["training"])["version"] == 2


def test_texts_that_the_registry_would_refuse_are_cut(put: Register, aws: Aws, artifact: str) -> None:
    training = results(artifact)["training"]
    many = {f"parameter-{number:02d}": "[1, 2]" for number in range(60)}
    package = put(
        right=16,
        dataset=f"s3://{BUCKET}/{'x' * 300}",
        training={**training, "hyperparameters": many},
    )
    metadata = described(aws, package["arn"])["CustomerMetadataProperties"]
    assert len(metadata["data"]) == 256
    assert metadata["hyperparameter:parameter-00"] == " 1  2 "
    assert len(metadata) == 47
    mark_live(aws, package["arn"], datetime.now(UTC), "config-1")


def test_the_previous_version_is_the_newest_approved_one_that_was_live(aws: Aws, group: str) -> None:
    uris = [write(aws.s3, f"{REGISTRY}/{group}/{n}/model.tar.gz", b"model") for n in range(5)]
    first, second, third, fourth, fifth = (put_version(aws, group, uri) for uri in uris)
    now = datetime(2026, 11, 22, 6, 40, tzinfo=UTC)
    for number, arn in enumerate((first, second, third, fifth)):
        mark_live(aws, arn, now, f"config-{number}")
    set_approval(aws, fourth, approved=True, sentence="approved, never live")
    before = previous_live(aws, group, uris[4])
    assert before is not None
    assert before["ModelPackageArn"] == third
    assert before["CustomerMetadataProperties"] == {
        "live-since": "2026-11-22T06:40:00+00:00",
        "live-config": "config-2",
    }
    reject(aws, third, "The endpoint's predictions differ from the model's.")
    before = previous_live(aws, group, uris[4])
    assert before is not None
    assert before["ModelPackageArn"] == second
    assert previous_live(aws, group, uris[0]) is None
    newest = previous_live(aws, group, f"s3://{BUCKET}/unknown/model.tar.gz")
    assert newest is not None
    assert newest["ModelPackageArn"] == fifth
    third_now = described(aws, third)
    assert third_now["ModelApprovalStatus"] == "Rejected"
    assert "CustomerMetadataProperties" not in third_now


def test_versions_follow_each_other_as_they_went_live(aws: Aws, group: str) -> None:
    uris = [write(aws.s3, f"{REGISTRY}/{group}/{n}/model.tar.gz", b"model") for n in range(3)]
    days = (1, 3, 2)  # the second one waited for its approval until the third was live
    for uri, day in zip(uris, days, strict=True):
        mark_live(aws, put_version(aws, group, uri), datetime(2026, 11, day, tzinfo=UTC), f"config-{day}")
    before = [previous_live(aws, group, uri) for uri in (None, uris[1], uris[2], uris[0])]
    assert [package and package["ModelPackageVersion"] for package in before] == [2, 3, 1, None]


def test_a_group_that_does_not_exist_has_no_versions(aws: Aws) -> None:
    assert package_of(aws, "no-such-group", f"s3://{BUCKET}/model.tar.gz") is None
    assert previous_live(aws, "no-such-group", None) is None


def test_many_versions_are_read_page_by_page(
    aws: Aws, group: str, artifact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retraining.registry.registry._PAGE", 2)
    wanted = put_version(aws, group, artifact)
    for number in range(4):
        put_version(
            aws, group, write(aws.s3, f"{REGISTRY}/{group}/p{number}/model.tar.gz", b"model"), "Rejected"
        )
    found = package_of(aws, group, artifact)
    assert found is not None
    assert found["ModelPackageArn"] == wanted
