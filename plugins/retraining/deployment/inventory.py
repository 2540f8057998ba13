"""What a pipeline's runs have left in SageMaker and S3, and what of it is in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from botocore.exceptions import ClientError

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, primary_container
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import MOVING, describe_endpoint, models_of, or_none, tags_of
from retraining.registry.registry import artifact_of
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_pattern

PIPELINE_TAG = "pipeline"


@dataclass(frozen=True)
class Usage:
    """What the endpoints of the account and region use, in service or on its way there.

    `unknown` are endpoints on the move of which SageMaker does not say whereto.
    """

    configs: frozenset[str]
    models: frozenset[str]
    artifacts: frozenset[str]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """Names of what belongs to a pipeline, newest first; `packages` are artifacts by ARN."""

    models: list[str]
    configs: list[str]
    folders: list[str]
    packages: dict[str, str]


def usage(aws: Aws) -> Usage:
    """Look at every endpoint, also those of other pipelines: they may have borrowed a model."""
    configs: set[str] = set()
    unknown = []
    for page in aws.sagemaker.get_paginator("list_endpoints").paginate():
        for endpoint in page["Endpoints"]:
            description = describe_endpoint(aws, endpoint["EndpointName"])
            if description is None:
                continue
            pending = description.get("PendingDeploymentSummary")
            stated = (description, pending or {})
            configs |= {part["EndpointConfigName"] for part in stated if "EndpointConfigName" in part}
            if description["EndpointStatus"] in MOVING and pending is None:
                unknown.append(endpoint["EndpointName"])
    models = {model for config in configs for model in models_of(aws, config)}
    return Usage(frozenset(configs), frozenset(models), artifacts(aws, models), tuple(unknown))


def inventory(pipeline: Pipeline, location: RunLocation, aws: Aws) -> Inventory:
    """Everything that carries the pipeline's tag and a run's name, its run folders, and its packages."""
    pattern = run_pattern(pipeline.slug)
    return Inventory(
        models=_own_models(aws, pattern, pipeline.name),
        configs=_own_configs(aws, pattern, pipeline.name),
        folders=_run_folders(aws, pattern, location),
        packages=_packages(aws, pipeline.package_group),
    )


def artifacts(aws: Aws, models: Iterable[str]) -> frozenset[str]:
    """URIs of the archives of these models, as far as they exist."""
    described = (or_none(partial(aws.sagemaker.describe_model, ModelName=name)) for name in models)
    return frozenset(uri for model in described if model and (uri := archive_of(primary_container(model))))


def folder_of(artifact: str, location: RunLocation) -> str | None:
    """The run folder that an archive lies in, or None where that is none of the pipeline's."""
    base = location.shared_uri("")
    return artifact.removeprefix(base).split("/")[0] if artifact.startswith(base) else None


def is_of_run(name: str, run: str) -> bool:
    """Whether a name is a run's, of any attempt."""
    return name == run or name.startswith(f"{run}-r")


def _own_models(aws: Aws, pattern: re.Pattern[str], pipeline: str) -> list[str]:
    pages = aws.sagemaker.get_paginator("list_models").paginate()
    found = (model for page in pages for model in page["Models"])
    return _newest(
        (model["CreationTime"], model["ModelName"])
        for model in found
        if pattern.fullmatch(model["ModelName"]) and _belongs(aws, model["ModelArn"], pipeline)
    )


def _own_configs(aws: Aws, pattern: re.Pattern[str], pipeline: str) -> list[str]:
    pages = aws.sagemaker.get_paginator("list_endpoint_configs").paginate()
    found = (config for page in pages for config in page["EndpointConfigs"])
    return _newest(
        (config["CreationTime"], config["EndpointConfigName"])
        for config in found
        if pattern.fullmatch(config["EndpointConfigName"])
        and _belongs(aws, config["EndpointConfigArn"], pipeline)
    )


def _newest(found: Iterable[tuple[datetime, str]]) -> list[str]:
    return [name for _, name in sorted(found, reverse=True)]


def _belongs(aws: Aws, arn: str, pipeline: str) -> bool:
    try:
        return tags_of(aws, arn).get(PIPELINE_TAG) == pipeline
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ValidationException", "ResourceNotFound"}:
            return False  # deleted since it was listed
        raise


def _run_folders(aws: Aws, pattern: re.Pattern[str], location: RunLocation) -> list[str]:
    """By the time in their names."""
    prefix = f"{location.shared}/"
    pages = aws.s3.get_paginator("list_objects_v2").paginate(
        Bucket=location.bucket, Prefix=prefix, Delimiter="/"
    )
    prefixes = (str(common["Prefix"]) for page in pages for common in page.get("CommonPrefixes", []))
    names = (name.removeprefix(prefix).rstrip("/") for name in prefixes)
    found = [(match["stamp"], name) for name in names if (match := pattern.fullmatch(name))]
    return [name for _, name in sorted(found, reverse=True)]


def _packages(aws: Aws, group: str) -> dict[str, str]:
    """Artifacts of all the versions of a group, by ARN; none where there is no such group."""
    if or_none(lambda: aws.sagemaker.describe_model_package_group(ModelPackageGroupName=group)) is None:
        return {}
    pages = aws.sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    arns = [summary["ModelPackageArn"] for page in pages for summary in page["ModelPackageSummaryList"]]
    described = {
        arn: or_none(partial(aws.sagemaker.describe_model_package, ModelPackageName=arn)) for arn in arns
    }
    archives = {arn: artifact_of(package) for arn, package in described.items() if package}
    return {arn: archive for arn, archive in archives.items() if archive}
