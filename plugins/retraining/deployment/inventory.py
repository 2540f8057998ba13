"""What a pipeline's runs have left in SageMaker and S3, and which of it is in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, or_none, primary_container
from retraining.aws.tags import tags_of
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import MOVING, describe_endpoint, models_of
from retraining.registry.registry import artifact_of, version_pages
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_pattern

PIPELINE_TAG = "pipeline"
"""Tag of a model or an endpoint configuration: the name of its pipeline."""


@dataclass(frozen=True)
class Usage:
    """What the endpoints of the account and region serve or are being updated to.

    `artifacts` are archive URIs; `unknown` are endpoints in a change whose target SageMaker does not name.
    """

    configs: frozenset[str]
    models: frozenset[str]
    artifacts: frozenset[str]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """Names of what belongs to a pipeline, newest first; `packages` are archive URIs by ARN."""

    models: list[str]
    configs: list[str]
    folders: list[str]
    packages: dict[str, str]


def usage(aws: Aws) -> Usage:
    """Describe every endpoint, including those of other pipelines, which may serve this one's models."""
    configs: set[str] = set()
    unknown: list[str] = []
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
    """The pipeline's run folders and packages, and whatever has its tag and the name of one of its runs."""
    pattern = run_pattern(pipeline.slug)
    return Inventory(
        models=_own_models(aws, pattern, pipeline.name),
        configs=_own_configs(aws, pattern, pipeline.name),
        folders=run_folders(aws, pattern, location),
        packages=_packages(aws, pipeline.package_group),
    )


def artifacts(aws: Aws, models: Iterable[str]) -> frozenset[str]:
    """Archive URIs of these models, if they still exist."""
    described = (or_none(partial(aws.sagemaker.describe_model, ModelName=name)) for name in models)
    return frozenset(uri for model in described if model and (uri := archive_of(primary_container(model))))


def folder_of(artifact: str, location: RunLocation) -> str | None:
    """The run folder that holds an archive, or None if it is outside the pipeline's folder."""
    base = location.shared_uri("")
    return artifact.removeprefix(base).split("/")[0] if artifact.startswith(base) else None


def is_of_run(name: str, run: str) -> bool:
    """Whether a name is that of one of the run's attempts."""
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
    """Whether a resource has the pipeline's tag; false if it was deleted after it was listed."""
    return (or_none(partial(tags_of, aws, arn)) or {}).get(PIPELINE_TAG) == pipeline


def run_folders(aws: Aws, pattern: re.Pattern[str], location: RunLocation) -> list[str]:
    """Names of the pipeline's run folders in S3, the newest first by the time in them."""
    prefix = f"{location.shared}/"
    pages = aws.s3.get_paginator("list_objects_v2").paginate(
        Bucket=location.bucket, Prefix=prefix, Delimiter="/"
    )
    prefixes = (str(common["Prefix"]) for page in pages for common in page.get("CommonPrefixes", []))
    names = (name.removeprefix(prefix).rstrip("/") for name in prefixes)
    found = [(match["stamp"], name) for name in names if (match := pattern.fullmatch(name))]
    return [name for _, name in sorted(found, reverse=True)]


def _packages(aws: Aws, group: str) -> dict[str, str]:
    """Archive URIs of all versions of a group, by ARN; none if there is no such group."""
    describe = aws.sagemaker.describe_model_package
    arns = [arn for page in version_pages(aws, group) for arn in page]
    described = {arn: or_none(partial(describe, ModelPackageName=arn)) for arn in arns}
    archives = {arn: artifact_of(package) for arn, package in described.items() if package}
    return {arn: archive for arn, archive in archives.items() if archive}
