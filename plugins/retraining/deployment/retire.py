"""Deletes what a pipeline's earlier runs have left: models, endpoint configurations, run folders, packages.

Kept are the newest of each and, however old, what is in use: at any endpoint, by the run that goes on, as
what the next run compares itself with, or as a model that a rollback can go back to. Code archives and
captured data stay: the first are small and shared by runs, the second are no run's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import Watch, describe_endpoint, models_of, remembered_previous, serving
from retraining.deployment.inventory import (
    Inventory,
    Usage,
    artifacts,
    folder_of,
    inventory,
    is_of_run,
    usage,
)
from retraining.errors import RetireError
from retraining.planning.deployment import STARTUP_SECONDS
from retraining.registry.registry import artifact_of, previous_live
from retraining.runs.context import RunLocation
from retraining.runs.state import last_run

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_BATCH = 1000  # keys of a DeleteObjects request


@dataclass(frozen=True)
class Selection:
    """Names by kind; `packages` are ARNs."""

    models: list[str]
    configs: list[str]
    folders: list[str]
    packages: list[str]


def retire(pipeline: Pipeline, location: RunLocation, aws: Aws) -> dict[str, Any]:
    """Delete what nobody needs, once the pipeline's endpoint rests. A retry deletes what is left.

    Returns `{models, configs, folders, packages, kept: {models, configs, folders, packages}}`, all names,
    packages by ARN. Raises RetireError where S3 refuses.
    """
    Watch(aws, pipeline.endpoint_name).rest(STARTUP_SECONDS)
    found, used = inventory(pipeline, location, aws), usage(aws)
    kept = _kept(pipeline, location, aws, found, used)
    doomed = _without(found, kept)
    configs = [] if used.unknown else _delete_configs(aws, doomed.configs)
    if configs == doomed.configs and not used.unknown:
        deleted = Selection(
            models=[name for name in doomed.models if _delete_model(aws, name)],
            configs=configs,
            packages=[arn for arn in doomed.packages if _delete_package(aws, arn)],
            folders=[_delete_folder(aws.s3, location, name) for name in doomed.folders],
        )
    else:
        log.warning("An endpoint is being updated, so the rest waits for the next run")
        deleted = Selection(models=[], configs=configs, packages=[], folders=[])
    for kind, names in asdict(deleted).items():
        log.info("Deleted %d %s: %s", len(names), kind, ", ".join(names) or "none")
    kept = _without(found, deleted)
    log.info("Kept: %s", asdict(kept))
    return {**asdict(deleted), "kept": asdict(kept)}


def _kept(pipeline: Pipeline, location: RunLocation, aws: Aws, found: Inventory, used: Usage) -> Selection:
    number = pipeline.retire.keep
    live = (describe_endpoint(aws, pipeline.endpoint_name) or {}).get("EndpointConfigName")
    served = serving(aws, live) if live else None
    before = remembered_previous(aws, live) if served and live else None
    configs = {*found.configs[:number], *used.configs, before}
    configs |= {name for name in found.configs if is_of_run(name, location.run)}
    models = {*found.models[:number], *used.models}
    models |= {name for name in found.models if is_of_run(name, location.run)}
    models |= {model for config in found.configs if config in configs for model in models_of(aws, config)}
    archives = {
        *used.artifacts,
        *artifacts(aws, models.intersection(found.models)),
        *_rollback_targets(pipeline, aws, served.artifact if served else None),
    }
    folders = {*found.folders[:number], location.run, (last_run(aws, location) or {}).get("run")}
    folders |= {folder_of(archive, location) for archive in archives}
    return Selection(
        models=[name for name in found.models if name in models],
        configs=[name for name in found.configs if name in configs],
        folders=[name for name in found.folders if name in folders],
        packages=[
            arn
            for arn, archive in found.packages.items()
            if (folder := folder_of(archive, location)) is None or folder in folders
        ],
    )


def _rollback_targets(pipeline: Pipeline, aws: Aws, artifact: str | None) -> set[str]:
    """Archives of the models that rollbacks lead to, one after the other, from the one in service."""
    targets: set[str] = set()
    while len(targets) < pipeline.retire.keep - 1:
        package = previous_live(aws, pipeline.package_group, artifact)
        artifact = artifact_of(package) if package else None
        if artifact is None or artifact in targets:
            break
        targets.add(artifact)
    return targets


def _without(found: Inventory, others: Selection) -> Selection:
    return Selection(
        models=[name for name in found.models if name not in others.models],
        configs=[name for name in found.configs if name not in others.configs],
        folders=[name for name in found.folders if name not in others.folders],
        packages=[arn for arn in found.packages if arn not in others.packages],
    )


def _delete_configs(aws: Aws, names: Iterable[str]) -> list[str]:
    """Delete configurations, looking at all endpoints again before each; ends where one is in use by now.

    No deployment of this project asks for an old configuration: each makes its own, and what a failed
    verification goes back to is kept.
    """
    deleted = []
    for name in names:
        now = usage(aws)
        if now.unknown or name in now.configs:
            break
        _gone(partial(aws.sagemaker.delete_endpoint_config, EndpointConfigName=name))
        deleted.append(name)
    return deleted


def _delete_model(aws: Aws, name: str) -> bool:
    return _gone(partial(aws.sagemaker.delete_model, ModelName=name))


def _delete_package(aws: Aws, arn: str) -> bool:
    return _gone(partial(aws.sagemaker.delete_model_package, ModelPackageName=arn))


def _gone(delete: Callable[[], object]) -> bool:
    """Delete something that somebody else may have deleted already; true if it was there."""
    try:
        delete()
    except ClientError as error:
        if error.response["Error"]["Code"] in {"ValidationException", "ResourceNotFound"}:
            return False
        raise
    return True


def _delete_folder(s3: S3Client, location: RunLocation, run: str) -> str:
    """Delete every object of a run. Returns the run."""
    prefix = f"{location.shared}/{run}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=prefix)
    keys: list[Any] = [{"Key": entry["Key"]} for page in pages for entry in page.get("Contents", [])]
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        answer = s3.delete_objects(Bucket=location.bucket, Delete={"Objects": batch, "Quiet": True})
        if errors := answer.get("Errors"):
            raise RetireError(
                f"S3 does not delete s3://{location.bucket}/{errors[0].get('Key')}: {errors[0].get('Message')}. "
                "Allow s3:DeleteObject on the run folders, or delete them by hand."
            )
    return run
