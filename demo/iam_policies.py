"""Writes the policies of docs/iam as JSON, from the CloudFormation template (`make iam-policies`).

For accounts that are not set up by CloudFormation. The template is deployed into moto, so the documents are
what a stack has, with REGION and ACCOUNT in place of moto's. Runs in the local SageMaker's environment.
"""

from __future__ import annotations

import json
from typing import Any

import boto3
from moto import mock_aws

from demo.environments import ROOT

FOLDER = ROOT / "docs" / "iam"
TEMPLATE = FOLDER / "account.yaml"
REGION, ACCOUNT = "us-east-1", "123456789012"


def documents(**parameters: str) -> dict[str, Any]:
    """Name of the file → policy document, of a stack with these parameters."""
    credentials = {"aws_access_key_id": "moto", "aws_secret_access_key": "moto"}
    session = boto3.Session(region_name=REGION, **credentials)  # type: ignore[arg-type]
    with mock_aws():
        session.client("cloudformation").create_stack(
            StackName="retraining",
            TemplateBody=TEMPLATE.read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        iam = session.client("iam")
        [role] = iam.list_roles()["Roles"]
        found = {"job-role-trust.json": role["AssumeRolePolicyDocument"]}
        for policy in iam.list_policies(Scope="Local")["Policies"]:
            version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
            name = policy["PolicyName"].split("-")[1]
            found[FILES[name]] = version["PolicyVersion"]["Document"]
    text = json.dumps(found).replace(REGION, "REGION").replace(ACCOUNT, "ACCOUNT")
    result: dict[str, Any] = json.loads(text)
    return result


FILES = {
    "AirflowPolicy": "airflow-policy.json",
    "JobPolicy": "job-role-policy.json",
    "KeyPolicy": "key-policy.json",
}
"""File of each policy of the template."""


def main() -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/KEY"
    for name, document in documents(KmsKeyArn=key).items():
        (FOLDER / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
