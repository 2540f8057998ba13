"""SageMaker's model registry: a version for every run's model, whether it may be deployed, and which were.

The versions of a pipeline form one group.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, as_json
from retraining.aws.s3 import write_json
from retraining.config.pipeline import Pipeline
from retraining.registry.package import description, package_request

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_sagemaker.literals import ModelApprovalStatusType

log = logging.getLogger(__name__)

Result = Mapping[str, Any]

APPROVED: Final = "Approved"
REJECTED: Final = "Rejected"
PENDING: Final = "PendingManualApproval"
LIVE_SINCE, LIVE_CONFIG = "live-since", "live-config"
"""Metadata of a version that is or was in service: since when, and under which endpoint configuration."""
_GATE_DESCRIPTION = "gate-description"  # metadata: digest of the last description that is the gate's

RULES = "rules.json"  # in the run's folder

_PAGE = 100  # the most that BatchDescribeModelPackage takes


def register(
    pipeline: Pipeline,
    *,
    plan: Result,
    dataset: Result,
    training: Result,
    evaluation: Result,
    debugger: Result,
    gate: Result,
    candidates: Result,
    tuning: Result | None,
    aws: Aws,
) -> dict[str, Any]:
    """Register the run's model, once: a retry finds the version that is there and gives it the gate's status.

    The status is Rejected or Approved by the gate, or PendingManualApproval while a person's approval is due.
    Returns `{group, version, arn, status}`.
    """
    run, group = plan["run"], pipeline.package_group
    ensure_group(aws, group, pipeline.name)
    rules = write_json(aws.s3, f"{run['output']}/{RULES}", _rule_table(training, debugger))
    package = package_of(aws, group, training["model_artifact"])
    if package is None:
        request = package_request(
            pipeline=pipeline,
            plan=plan,
            dataset=dataset,
            training=training,
            evaluation=evaluation,
            gate=gate,
            candidates=candidates,
            tuning=tuning,
            rules=rules,
        )
        status = _first_status(gate, run)
        answer = aws.sagemaker.create_model_package(**request, ModelApprovalStatus=status)
        package = _describe(aws, answer["ModelPackageArn"])
    else:
        log.info("The run's model is registered already")
    package = _follow_gate(aws, package, gate, run)
    result = {
        "group": group,
        "version": package["ModelPackageVersion"],
        "arn": package["ModelPackageArn"],
        "status": package["ModelApprovalStatus"],
    }
    log.info("Version %(version)s of %(group)s is %(status)s: %(arn)s", result)
    return result


def settle(aws: Aws, arn: str, approved: bool, sentence: str) -> None:
    """Approve or reject a version; `sentence` says why."""
    status: ModelApprovalStatusType = APPROVED if approved else REJECTED
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus=status,
        ApprovalDescription=description(sentence),
    )
    log.info("%s is %s: %s", arn, status, sentence)


def rejected(aws: Aws, arn: str, why: str) -> None:
    """Reject a version that did not prove itself in service; it counts as one that never was in service."""
    settle(aws, arn, approved=False, sentence=why)
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn, CustomerMetadataPropertiesToRemove=[LIVE_SINCE, LIVE_CONFIG]
    )


def rejected_or_logged(aws: Aws, arn: str, why: str) -> None:
    """The same on the way to an error about the version: a registry that refuses must not hide that error."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        rejected(aws, arn, why)
    except (ClientError, BotoCoreError) as error:
        log.error("%s could not be rejected in the registry, do it by hand: %s", arn, error)  # noqa: TRY400


def proved(aws: Aws, arn: str, when: datetime, config: str) -> None:
    """Note that a version serves well under an endpoint configuration: it is live, and approved even if an
    earlier try to deploy it had it rejected.
    """
    if _describe(aws, arn)["ModelApprovalStatus"] != APPROVED:
        settle(aws, arn, approved=True, sentence=f"The model passed the check of its endpoint as {config}.")
    mark_live(aws, arn, when, config)


def mark_live(aws: Aws, arn: str, when: datetime, config: str) -> None:
    """Note that a version went into service under an endpoint configuration."""
    marks = {LIVE_SINCE: when.isoformat(timespec="seconds"), LIVE_CONFIG: config}
    aws.sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=marks)


def package_of(aws: Aws, group: str, artifact: str) -> dict[str, Any] | None:
    """Description of the group's newest version of this model.tar.gz, or None."""
    for summaries in _pages(aws, group):
        arns = [summary["ModelPackageArn"] for summary in summaries]
        answer = aws.sagemaker.batch_describe_model_package(ModelPackageArnList=arns)
        for arn in arns:  # in the order of the list: newest first
            package = answer["ModelPackageSummaries"].get(arn)
            if package and artifact_of(package) == artifact:
                return _describe(aws, arn)
    return None


def previous_live(aws: Aws, group: str, artifact: str | None) -> dict[str, Any] | None:
    """Description of the approved version that was in service last before the one of `artifact`, or None.

    Versions follow each other as they went live, which need not be as they were registered; one that is not
    live any more stands where it was registered. Without `artifact`, or where the group has no version of it:
    the one that went live last.
    """
    current = package_of(aws, group, artifact) if artifact else None
    approved = (
        _describe(aws, summary["ModelPackageArn"])
        for summaries in _pages(aws, group, status=APPROVED)
        for summary in summaries
    )
    before = [
        package
        for package in approved
        if LIVE_SINCE in package["CustomerMetadataProperties"]
        and artifact_of(package) != artifact
        and (current is None or _precedes(package, current))
    ]
    return max(before, key=_went_live, default=None)


def artifact_of(package: Mapping[str, Any]) -> str | None:
    """URI of a package's model.tar.gz."""
    return archive_of(package["InferenceSpecification"]["Containers"][0])


def _precedes(package: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    if LIVE_SINCE in current["CustomerMetadataProperties"]:
        return _went_live(package) < _went_live(current)
    return bool(package["ModelPackageVersion"] < current["ModelPackageVersion"])


def _went_live(package: Mapping[str, Any]) -> tuple[datetime, int]:
    """When a version went live; of two in the same second, the one registered first was the first."""
    since = datetime.fromisoformat(package["CustomerMetadataProperties"][LIVE_SINCE])
    return since, int(package["ModelPackageVersion"])


def _describe(aws: Aws, arn: str) -> dict[str, Any]:
    package: dict[str, Any] = as_json(aws.sagemaker.describe_model_package(ModelPackageName=arn))
    return {"CustomerMetadataProperties": {}, **package}


def _pages(
    aws: Aws, group: str, status: ModelApprovalStatusType | None = None
) -> Iterator[list[dict[str, Any]]]:
    """The group's versions, newest first; none where there is no such group."""
    from botocore.exceptions import ClientError

    wanted: dict[str, Any] = {"ModelApprovalStatus": status} if status else {}
    pages = aws.sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group,
        SortBy="CreationTime",
        SortOrder="Descending",
        PaginationConfig={"PageSize": _PAGE},
        **wanted,
    )
    try:
        for page in pages:
            if summaries := page["ModelPackageSummaryList"]:
                yield [dict(summary) for summary in summaries]
    except ClientError as error:
        if not _is_missing(error):
            raise


def _is_missing(error: ClientError) -> bool:
    return (
        error.response["Error"]["Code"] in {"ValidationException", "ResourceNotFound"}
        and "does not exist" in error.response["Error"]["Message"]
    )


def ensure_group(aws: Aws, group: str, pipeline: str) -> None:
    """Create the group of a pipeline's versions, unless there is one."""
    from botocore.exceptions import ClientError

    try:
        aws.sagemaker.describe_model_package_group(ModelPackageGroupName=group)
    except ClientError as error:
        if not _is_missing(error):
            raise
    else:
        return
    try:
        aws.sagemaker.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription=f"Models of the pipeline {pipeline}",
            Tags=[{"Key": "pipeline", "Value": pipeline}],
        )
    except ClientError as error:
        if "already exists" not in error.response["Error"]["Message"]:  # else another run has just made it
            raise


def _first_status(gate: Result, run: Result) -> ModelApprovalStatusType:
    if not gate["approved"]:
        return REJECTED
    return PENDING if run["approval"] else APPROVED


def _follow_gate(aws: Aws, package: dict[str, Any], gate: Result, run: Result) -> dict[str, Any]:
    """Give a version the gate's sentence, which no request to create one takes, and the gate's status where
    the gate has decided otherwise since. Else it is left as it is: a person may have decided. A rejection
    that is not the gate's own stays in any case: it is a person's, or the version failed in service.
    """
    arn, said = package["ModelPackageArn"], package.get("ApprovalDescription")
    is_rejected = package["ModelApprovalStatus"] == REJECTED
    own = said is None or package["CustomerMetadataProperties"].get(_GATE_DESCRIPTION) == _digest(said)
    if said and (gate["approved"] != is_rejected or (is_rejected and not own)):
        return package
    sentence = description(gate["sentence"])
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus=_first_status(gate, run),
        ApprovalDescription=sentence,
        CustomerMetadataProperties={_GATE_DESCRIPTION: _digest(sentence)},
    )
    return _describe(aws, arn)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _rule_table(training: Result, debugger: Result) -> dict[str, Any]:
    return {"job": training["job"], "mode": debugger["mode"], "rules": debugger["rules"]}
