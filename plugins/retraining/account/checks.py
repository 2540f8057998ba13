"""Whether an account has what a pipeline's runs need.

Each check has three outcomes, and "could not tell" is one. Everything here reads. What a check may not ask,
or cannot reach, it could not tell; that is never taken for a no.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from retraining.aws.images import default_image, patch_warning, rules_image
from retraining.config.pipeline import Pipeline
from retraining.errors import PlanError

Client = Callable[[str], Any]
"""From a service's name to its boto3 client."""

ACTIONS = Path(__file__).with_name("actions.yaml")
SAGEMAKER = "sagemaker.amazonaws.com"
_RULES_INSTANCE = "ml.t3.medium"  # of AWS's built-in rules, which name no instance type
_SIMULATED = 100  # actions in a call of SimulatePrincipalPolicy
_REGISTRY = re.compile(r"^(?P<account>\d{12})\.dkr\.ecr\.[^/]+/(?P<repository>[^:@]+):(?P<tag>.+)$")

# Answers that say "no" to a question; every other error means that it could not be asked.
_ABSENT = {"NoSuchEntity", "NoSuchBucket", "404"}


@dataclass(frozen=True)
class Line:
    """A check's outcome: `ok`, `unknown` (could not tell) or `fix`, and a sentence."""

    outcome: Literal["ok", "unknown", "fix"]
    subject: str
    text: str


def check_account(pipeline: Pipeline, client: Client, region: str, today: date) -> Iterator[Line]:
    """All checks, one after the other."""
    identity = _asked("identity", lambda: client("sts").get_caller_identity())
    if isinstance(identity, Line):
        yield identity
        return
    yield Line("ok", "identity", f"{identity['Arn']}, region {region}")
    images = list(_images(pipeline, region, today))
    yield from (line for line in images if isinstance(line, Line))
    yield from check_role(pipeline.role, client)
    yield from _permissions(identity["Arn"], client)
    bucket = pipeline.bucket or f"sagemaker-{region}-{identity['Account']}"
    yield check_bucket(bucket, region, client)
    yield from _quotas(pipeline, client)
    for uri in dict.fromkeys(uri for uri in images if isinstance(uri, str)):
        yield _image(uri, client)
    yield _debugger(pipeline)


def check_role(role: str, client: Client) -> Iterator[Line]:
    """The job role, by name or ARN, and whether SageMaker may take it."""
    name = role.rpartition("/")[2]
    found = _asked(
        "job role",
        lambda: client("iam").get_role(RoleName=name)["Role"],
        f"there is no role {name}: docs/iam/account.yaml makes it, or the pipeline file names another",
    )
    if isinstance(found, Line):
        yield found
    elif trusts_sagemaker(found.get("AssumeRolePolicyDocument")):
        yield Line("ok", "job role", f"{found['Arn']}, which SageMaker may take")
    else:
        yield Line(
            "fix", "job role", f"{found['Arn']} does not trust {SAGEMAKER}: see docs/iam/job-role-trust.json"
        )


def trusts_sagemaker(document: Any) -> bool:
    """Whether a trust policy lets SageMaker take the role."""
    statements = document.get("Statement", []) if isinstance(document, Mapping) else []
    for statement in [statements] if isinstance(statements, Mapping) else statements:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, Mapping) else [SAGEMAKER]
        actions = statement.get("Action", [])
        trusted = SAGEMAKER in ([services] if isinstance(services, str) else services)
        if statement.get("Effect") == "Allow" and trusted and "sts:AssumeRole" in actions:
            return True
    return False


def check_bucket(bucket: str, region: str, client: Client) -> Line:
    """Whether the bucket is there, in the region."""
    found = _asked(
        "bucket",
        lambda: client("s3").head_bucket(Bucket=bucket),
        f"there is no bucket {bucket}: docs/iam/account.yaml makes it, or the pipeline file names another",
    )
    if isinstance(found, Line):
        return found
    headers = found.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    place = found.get("BucketRegion") or headers.get("x-amz-bucket-region") or region
    if place != region:
        return Line(
            "fix",
            "bucket",
            f"{bucket} is in {place}, and the jobs are in {region}: SageMaker wants one region",
        )
    return Line("ok", "bucket", f"{bucket} in {place}")


def needed_actions() -> list[str]:
    """Every IAM action that the Airflow side needs."""
    return sorted(
        {action for operations in _table().values() for actions in operations.values() for action in actions}
    )


def needed_quotas(pipeline: Pipeline) -> dict[str, int]:
    """Instances that a run may use at a time, by the quota's name."""
    job, endpoint, evaluation = pipeline.job, pipeline.endpoint, pipeline.evaluation
    spot = "spot " if job.spot else ""
    needed = {
        f"{job.instance_type} for {spot}training job usage": pipeline.tuning.max_parallel_jobs,
        f"{evaluation.instance_type} for processing job usage": 1,
        # a blue/green update runs the old and the new fleet
        f"{endpoint.instance_type} for endpoint usage": 2 * endpoint.instance_count,
    }
    if pipeline.debugger == "service":
        rules = len(pipeline.rules) + pipeline.profiler.report
        name = f"{_RULES_INSTANCE} for processing job usage"
        needed[name] = needed.get(name, 0) + rules
    return needed


def _images(pipeline: Pipeline, region: str, today: date) -> Iterator[Line | str]:
    """The images of a run, and lines for what is wrong with them."""
    named = {
        "training image": (pipeline.job.image_uri, "training", pipeline.job.instance_type),
        "serving image": (pipeline.endpoint.image_uri, "serving", pipeline.endpoint.instance_type),
    }
    for subject, (uri, use, instance_type) in named.items():
        try:
            image = uri or default_image(
                "training" if use == "training" else "serving", region, instance_type
            )
        except PlanError as error:
            yield Line("fix", subject, str(error))
            continue
        warning = patch_warning(image, today)
        yield (
            Line("fix", subject, warning)
            if warning
            else Line("ok", subject, f"{image}: still patched, or unknown")
        )
        yield image
    if pipeline.debugger == "service":
        try:
            rules_image(region)
        except PlanError as error:
            yield Line("fix", "Debugger rules", str(error))


def _image(uri: str, client: Client) -> Line:
    parts = _REGISTRY.match(uri)
    if parts is None:
        return Line("unknown", "image in ECR", f"{uri} is not in ECR, or named by a digest")
    found = _asked(
        "image in ECR",
        lambda: client("ecr").batch_get_image(
            registryId=parts["account"],
            repositoryName=parts["repository"],
            imageIds=[{"imageTag": parts["tag"]}],
        ),
    )
    if isinstance(found, Line):
        return found
    if found.get("images"):
        return Line("ok", "image in ECR", uri)
    return Line("fix", "image in ECR", f"{uri} is not there: name another image in the pipeline file")


def _permissions(arn: str, client: Client) -> Iterator[Line]:
    source = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", arn)
    actions, denied = needed_actions(), []
    for start in range(0, len(actions), _SIMULATED):
        part = actions[start : start + _SIMULATED]
        answer = _asked(
            "permissions",
            lambda part=part: client("iam").simulate_principal_policy(  # type: ignore[misc]
                PolicySourceArn=source, ActionNames=part
            ),
        )
        if isinstance(answer, Line):
            yield answer
            return
        denied += [
            result["EvalActionName"]
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed"
        ]
    if denied:
        yield Line(
            "unknown",
            "permissions",
            f"not allowed for every resource: {', '.join(denied)}. A policy for certain resources, like "
            "docs/iam/airflow-policy.json, looks the same here",
        )
    else:
        yield Line("ok", "permissions", f"all {len(actions)} actions are allowed for {source}")


def _quotas(pipeline: Pipeline, client: Client) -> Iterator[Line]:
    needed = needed_quotas(pipeline)

    def ask() -> dict[str, float]:
        pages = (
            client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
        )
        return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}

    quotas = _asked("quotas", ask)
    if isinstance(quotas, Line):
        yield quotas
        return
    for name, count in needed.items():
        if name not in quotas:
            yield Line("unknown", "quota", f"{name}: Service Quotas does not list it; a run needs {count}")
        elif quotas[name] < count:
            yield Line(
                "fix",
                "quota",
                f"{name} is {quotas[name]:g}, and a run needs {count}: ask for it in Service Quotas",
            )
        else:
            yield Line("ok", "quota", f"{name}: {quotas[name]:g} of {count}")


def _debugger(pipeline: Pipeline) -> Line:
    if pipeline.debugger == "service":
        return Line(
            "unknown",
            "Debugger",
            "debugger: service. AWS closed Debugger to new accounts on 2026-07-30; whether yours has it, "
            "only a training job shows. debugger: in_job needs nothing of the account",
        )
    return Line("ok", "Debugger", f"debugger: {pipeline.debugger}, which needs nothing of the account")


def _asked(subject: str, question: Callable[[], Any], absent: str = "") -> Any:
    """The answer, or a Line: `fix` where AWS says that something is not there, `unknown` for other errors."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return question()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if absent and code in _ABSENT:
            return Line("fix", subject, absent)
        return Line(
            "unknown", subject, f"could not tell: {code}: {error.response['Error'].get('Message', '')}"
        )
    except BotoCoreError as error:
        return Line("unknown", subject, f"could not tell: {error}")


@cache
def _table() -> Mapping[str, Mapping[str, list[str]]]:
    content: Mapping[str, Mapping[str, list[str]]] = yaml.safe_load(ACTIONS.read_text(encoding="utf-8"))
    return content
