"""What is said about an account: against a local SageMaker, and for answers that only AWS gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from retraining.account.checks import (
    check_account,
    check_bucket,
    check_role,
    needed_actions,
    needed_quotas,
    trusts_sagemaker,
)
from retraining.config.pipeline import Pipeline

from tests.dags.airflow_home import BUCKET, REPOSITORY, ROLE_ARN, connected_runtime

TODAY = date(2026, 11, 26)


class Service:
    """A client whose operations answer with documents, or raise."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**_: Any) -> Any:
            answer = self._answers[operation]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


class Quotas:
    """Service Quotas with values by name."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def get_paginator(self, _: str) -> Quotas:
        return self

    def paginate(self, **_: Any) -> list[Any]:
        return [{"Quotas": [{"QuotaName": n, "Value": v} for n, v in self._values.items()]}]


def error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "so it is"}}, "AnOperation")


def answered(found: Any) -> Callable[[str], Any]:
    return lambda _service: found


def test_a_local_sagemaker_has_what_it_can_have_and_the_rest_is_not_told() -> None:
    runtime = connected_runtime()
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY / "plugins"),
        "AWS_ENDPOINT_URL": runtime.url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    pipeline = REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "retraining.account", pipeline],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok      job role: {ROLE_ARN}" in done.stdout
    assert f"ok      bucket: {BUCKET} in us-east-1" in done.stdout
    assert "unknown Debugger: debugger: service" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("0 to fix")


@pytest.mark.parametrize(
    ("answer", "outcome", "text"),
    [
        (error("NoSuchEntity"), "fix", "there is no role Jobs: docs/iam/account.yaml makes it"),
        (error("AccessDenied"), "unknown", "could not tell: AccessDenied"),
        (error("ThrottlingException"), "unknown", "could not tell: ThrottlingException"),
        (EndpointConnectionError(endpoint_url="https://iam"), "unknown", "could not tell"),
        (
            {"Role": {"Arn": "arn", "AssumeRolePolicyDocument": {"Statement": []}}},
            "fix",
            "does not trust sagemaker",
        ),
    ],
)
def test_a_role_is_there_or_not_or_nobody_can_tell(answer: Any, outcome: str, text: str) -> None:
    [line] = check_role("arn:aws:iam::1:role/path/Jobs", answered(Service(get_role=answer)))
    assert line.outcome == outcome
    assert text in line.text


@pytest.mark.parametrize(
    ("answer", "outcome", "text"),
    [
        (error("404"), "fix", "there is no bucket data"),
        (error("403"), "unknown", "could not tell: 403"),
        ({"BucketRegion": "eu-west-1"}, "fix", "data is in eu-west-1, and the jobs are in us-east-1"),
        ({"BucketRegion": "us-east-1"}, "ok", "data in us-east-1"),
    ],
)
def test_a_bucket_is_there_or_not_or_nobody_can_tell(answer: Any, outcome: str, text: str) -> None:
    line = check_bucket("data", "us-east-1", answered(Service(head_bucket=answer)))
    assert (line.outcome, text in line.text) == (outcome, True)


def test_quotas_that_a_run_exceeds_and_images_that_are_gone_are_to_be_fixed(pipeline: Pipeline) -> None:
    needed = needed_quotas(pipeline)
    endpoint = next(name for name in needed if "endpoint" in name)
    role = {"Arn": "arn", "AssumeRolePolicyDocument": {"Statement": []}}
    clients = {
        "sts": Service(get_caller_identity={"Arn": "arn:aws:sts::1:assumed-role/Airflow/x", "Account": "1"}),
        "iam": Service(
            get_role={"Role": role},
            simulate_principal_policy={
                "EvaluationResults": [{"EvalActionName": "iam:PassRole", "EvalDecision": "implicitDeny"}]
            },
        ),
        "s3": Service(head_bucket={}),
        "service-quotas": Quotas({**needed, endpoint: 0}),
        "ecr": Service(batch_get_image={"images": []}),
    }
    lines = list(check_account(pipeline, clients.__getitem__, "us-east-1", TODAY))
    found = {(line.outcome, line.subject) for line in lines}
    assert {("fix", "quota"), ("ok", "quota"), ("fix", "image in ECR"), ("unknown", "permissions")} <= found
    [short] = [line for line in lines if (line.outcome, line.subject) == ("fix", "quota")]
    assert short.text.startswith(f"{endpoint} is 0, and a run needs 2")


def test_every_rule_takes_an_instance_while_the_service_evaluates_them(pipeline: Pipeline) -> None:
    def rules(mode: str) -> int:
        changed = pipeline.model_copy(update={"debugger": mode})
        return needed_quotas(changed).get("ml.t3.medium for processing job usage", 0)

    assert rules("service") == len(pipeline.rules) + 1
    assert rules("in_job") == rules("off") == 0


def test_an_image_past_its_end_of_patch_and_a_region_without_rules_are_to_be_fixed(
    pipeline: Pipeline,
) -> None:
    def broken(service: str) -> Any:
        if service == "sts":
            return Service(get_caller_identity={"Arn": "arn:aws:iam::1:user/me", "Account": "1"})
        raise EndpointConnectionError(endpoint_url=service)

    lines = list(check_account(pipeline, broken, "mx-central-1", date(2027, 7, 21)))
    fixes = {line.subject for line in lines if line.outcome == "fix"}
    assert fixes == {"training image", "Debugger rules"}


def trust(effect: str, principal: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": effect, "Principal": principal, "Action": "sts:AssumeRole"}]}


@pytest.mark.parametrize(
    ("document", "trusted"),
    [
        (trust("Allow", {"Service": "sagemaker.amazonaws.com"}), True),
        (trust("Allow", {"Service": ["ec2.amazonaws.com", "sagemaker.amazonaws.com"]}), True),
        ({"Statement": trust("Allow", {"Service": "sagemaker.amazonaws.com"})["Statement"][0]}, True),
        (trust("Deny", {"Service": "sagemaker.amazonaws.com"}), False),
        (trust("Allow", {"AWS": "*"}), False),
        ({}, False),
    ],
)
def test_a_trust_policy_names_sagemaker_or_not(document: Any, *, trusted: bool) -> None:
    assert trusts_sagemaker(document) is trusted


def test_the_table_names_actions_of_iam() -> None:
    assert needed_actions()
    assert all(action.count(":") == 1 for action in needed_actions())
