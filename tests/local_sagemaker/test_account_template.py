"""The CloudFormation template for an account: without a finding of cfn-lint, and deployed into moto."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import iam_policies
from demo.environments import ROOT

KEY = "arn:aws:kms:us-east-1:123456789012:key/KEY"
ACTIONS = ROOT / "plugins" / "retraining" / "account" / "actions.yaml"


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return iam_policies.documents(KmsKeyArn=KEY)


def actions(document: dict[str, Any]) -> set[str]:
    found = set()
    for statement in document["Statement"]:
        listed = statement["Action"]
        found |= {listed} if isinstance(listed, str) else set(listed)
    return found


def test_cfn_lint_finds_nothing() -> None:
    command = [Path(sys.prefix) / "bin" / "cfn-lint", iam_policies.TEMPLATE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_documents_for_people_are_those_of_the_template(documents: dict[str, Any]) -> None:
    written = {name: json.loads((iam_policies.FOLDER / name).read_text()) for name in documents}
    assert documents == written, "run `make iam-policies`"


def test_without_a_key_there_is_no_policy_for_it() -> None:
    assert set(iam_policies.documents()) == set(iam_policies.FILES.values()) - {"key-policy.json"} | {
        "job-role-trust.json"
    }


def test_airflow_may_do_what_its_operations_need_and_nothing_else(documents: dict[str, Any]) -> None:
    table = yaml.safe_load(ACTIONS.read_text())
    needed = {action for operations in table.values() for needs in operations.values() for action in needs}
    assert actions(documents["airflow-policy.json"]) == needed


def test_only_sagemaker_may_take_the_jobs_role(documents: dict[str, Any]) -> None:
    [statement] = documents["job-role-trust.json"]["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    [passed] = [s for s in documents["airflow-policy.json"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert passed["Resource"] == "arn:aws:iam::ACCOUNT:role/SageMakerRetrainingRole"
