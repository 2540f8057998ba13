"""SageMaker's model registry: a version for every run's model, its approval, and which versions were live.

All versions of a pipeline are in one group.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, or_none
from retraining.aws.s3 import write_json
from retraining.config.pipeline import Pipeline
from retraining.registry.package import description, package_request
from retraining.runs.results import PackageResult, RunResults

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import ModelApprovalStatusType
    from mypy_boto3_sagemaker.type_defs import (
        DescribeModelPackageOutputTypeDef,
        ListModelPackagesInputPaginateTypeDef,
    )

log = logging.getLogger(__name__)

APPROVED: Final = "Approved"
REJECTED: Final = "Rejected"
PENDING: Final = "PendingManualApproval"
LIVE_SINCE, LIVE_CONFIG = "live-since", "live-config"
"""Metadata of a version that is or was in service: since when (ISO 8601), and its endpoint configuration."""
_GATE_DESCRIPTION = "gate-description"  # metadata: digest of the last approval description that the gate gave

RULES = "rules.json"
"""File in the run's folder: the table of Debugger rules."""

_PAGE = 100  # the most that BatchDescribeModelPackage takes


def register(pipeline: Pipeline, results: RunResults, aws: Aws) -> PackageResult:
    """Register the run's model once: a retry finds the version and gives it the gate's status.

    The status is Rejected or Approved as the gate decided, or PendingManualApproval if a person is to decide.
    """
    run, training, debugger = results["plan"]["run"], results["training"], results["debugger"]
    group, approval = pipeline.package_group, run["approval"] or results["gate"]["ask"]
    ensure_group(aws, group, pipeline.name, pipeline.tags)
    table = {"job": training["job"], "mode": debugger["mode"], "rules": debugger["rules"]}
    rules = write_json(aws.s3, f"{run['output']}/{RULES}", table)
    approved, sentence = results["gate"]["approved"], results["gate"]["sentence"]
    status: ModelApprovalStatusType = (PENDING if approval else APPROVED) if approved else REJECTED
    package = package_of(aws, group, training["model_artifact"])
    if package is None:
        request = package_request(pipeline, results, rules, status)
        created = aws.sagemaker.create_model_package(**request)
        package = _describe(aws, created["ModelPackageArn"])
    else:
        log.info("The run's model is registered already")
    package = _follow_gate(aws, package, status, sentence)
    result: PackageResult = {
        "group": group,
        "version": package["ModelPackageVersion"],
        "arn": package["ModelPackageArn"],
        "status": package["ModelApprovalStatus"],
    }
    log.info("Version %(version)s of %(group)s is %(status)s: %(arn)s", result)
    return result


def set_approval(aws: Aws, arn: str, approved: bool, sentence: str) -> None:
    """Approve or reject a version; `sentence` says why."""
    status: ModelApprovalStatusType = APPROVED if approved else REJECTED
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus=status,
        ApprovalDescription=description(sentence),
    )
    log.info("%s is %s: %s", arn, status, sentence)


def reject(aws: Aws, arn: str, why: str) -> None:
    """Reject a version that failed in service; from then on it counts as one that was never live."""
    set_approval(aws, arn, approved=False, sentence=why)
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn, CustomerMetadataPropertiesToRemove=[LIVE_SINCE, LIVE_CONFIG]
    )


def reject_or_log(aws: Aws, arn: str, why: str) -> None:
    """Reject a version, but only log a failure to do so: it must not hide the error that led here."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        reject(aws, arn, why)
    except (ClientError, BotoCoreError) as error:
        log.error("%s could not be rejected in the registry, do it by hand: %s", arn, error)  # noqa: TRY400


def mark_live(aws: Aws, arn: str, when: datetime, config: str) -> None:
    """Record that a version serves with an endpoint configuration, and approve it.

    It may be rejected because an earlier attempt to deploy it failed.
    """
    if _describe(aws, arn)["ModelApprovalStatus"] != APPROVED:
        set_approval(
            aws, arn, approved=True, sentence=f"The model passed the check of its endpoint as {config}."
        )
    marks = {LIVE_SINCE: when.isoformat(timespec="seconds"), LIVE_CONFIG: config}
    aws.sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties=marks)


def package_of(aws: Aws, group: str, artifact: str) -> DescribeModelPackageOutputTypeDef | None:
    """Description of the group's newest version of this model.tar.gz, or None."""
    for arns in version_pages(aws, group):
        batch = aws.sagemaker.batch_describe_model_package(ModelPackageArnList=arns)
        for arn in arns:
            package = batch["ModelPackageSummaries"].get(arn)
            if package and artifact_of(package) == artifact:
                return _describe(aws, arn)
    return None


def previous_live(aws: Aws, group: str, artifact: str | None) -> DescribeModelPackageOutputTypeDef | None:
    """Description of the approved version that was live last before the version of `artifact`, or None.

    Versions are ordered by the time when they went live, which may differ from their numbers; if the version
    of `artifact` has no such time, its number counts. Without `artifact`, or if the group has no version of
    it: the version that went live last.
    """
    current = package_of(aws, group, artifact) if artifact else None
    approved = (_describe(aws, arn) for arns in version_pages(aws, group, APPROVED) for arn in arns)
    earlier = [
        package
        for package in approved
        if LIVE_SINCE in package["CustomerMetadataProperties"]
        and artifact_of(package) != artifact
        and (current is None or _precedes(package, current))
    ]
    return max(earlier, key=_went_live, default=None)


def artifact_of(package: Mapping[str, Any]) -> str | None:
    """URI of a package's model.tar.gz."""
    return archive_of(package["InferenceSpecification"]["Containers"][0])


def version_pages(aws: Aws, group: str, status: ModelApprovalStatusType | None = None) -> Iterator[list[str]]:
    """ARNs of a group's versions, of this status or of any, newest first; none if there is no such group."""
    if not _exists(aws, group):
        return
    request: ListModelPackagesInputPaginateTypeDef = {
        "ModelPackageGroupName": group,
        "SortBy": "CreationTime",
        "SortOrder": "Descending",
        "PaginationConfig": {"PageSize": _PAGE},
    }
    if status:
        request["ModelApprovalStatus"] = status
    for page in aws.sagemaker.get_paginator("list_model_packages").paginate(**request):
        if summaries := page["ModelPackageSummaryList"]:
            yield [summary["ModelPackageArn"] for summary in summaries]


def ensure_group(aws: Aws, group: str, pipeline: str, tags: Mapping[str, str] | None = None) -> None:
    """Create the group of a pipeline's versions if it does not exist."""
    from botocore.exceptions import ClientError

    if _exists(aws, group):
        return
    try:
        aws.sagemaker.create_model_package_group(
            ModelPackageGroupName=group,
            ModelPackageGroupDescription=f"Models of the pipeline {pipeline}",
            Tags=[
                {"Key": key, "Value": value} for key, value in {**(tags or {}), "pipeline": pipeline}.items()
            ],
        )
    except ClientError as error:
        if "already exists" not in error.response["Error"]["Message"]:  # another run has just created it
            raise


def _exists(aws: Aws, group: str) -> bool:
    describe = aws.sagemaker.describe_model_package_group
    return or_none(partial(describe, ModelPackageGroupName=group)) is not None


def _precedes(package: DescribeModelPackageOutputTypeDef, current: DescribeModelPackageOutputTypeDef) -> bool:
    if LIVE_SINCE in current["CustomerMetadataProperties"]:
        return _went_live(package) < _went_live(current)
    return package["ModelPackageVersion"] < current["ModelPackageVersion"]


def _went_live(package: DescribeModelPackageOutputTypeDef) -> tuple[datetime, int]:
    """When a version went live; of two in the same second, the one with the lower number was first."""
    since = datetime.fromisoformat(package["CustomerMetadataProperties"][LIVE_SINCE])
    return since, package["ModelPackageVersion"]


def _describe(aws: Aws, arn: str) -> DescribeModelPackageOutputTypeDef:
    """DescribeModelPackage, with empty metadata where the response has none."""
    package = aws.sagemaker.describe_model_package(ModelPackageName=arn)
    package.setdefault("CustomerMetadataProperties", {})
    return package


def _follow_gate(
    aws: Aws, package: DescribeModelPackageOutputTypeDef, status: ModelApprovalStatusType, sentence: str
) -> DescribeModelPackageOutputTypeDef:
    """Set the gate's status and sentence on a new version, or on one that the gate now decides otherwise.

    Any other version stays as it is, because a person may have decided. A rejection that is not the gate's
    own always stays: a person rejected the version, or it failed in service.
    """
    arn, said = package["ModelPackageArn"], package.get("ApprovalDescription")
    is_rejected = package["ModelApprovalStatus"] == REJECTED
    own = said is None or package["CustomerMetadataProperties"].get(_GATE_DESCRIPTION) == _digest(said)
    if said and ((status == REJECTED) == is_rejected or (is_rejected and not own)):
        return package
    sentence = description(sentence)
    aws.sagemaker.update_model_package(
        ModelPackageArn=arn,
        ModelApprovalStatus=status,
        ApprovalDescription=sentence,
        CustomerMetadataProperties={_GATE_DESCRIPTION: _digest(sentence)},
    )
    return _describe(aws, arn)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
