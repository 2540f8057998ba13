"""Deletes what a pipeline's earlier runs have left: models, endpoint configurations, run folders, packages.

The newest of each are kept and, whatever their age, those in use: at any endpoint, by the current run, as
the record that the next run compares itself with, or as a model that a rollback can go back to. Code archives
stay because they are small and shared by runs, captured data because it belongs to no run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal

from retraining.aws.clients import Aws
from retraining.aws.responses import or_none
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import (
    at_rest,
    describe_endpoint,
    models_of,
    remembered_previous,
    serving,
)
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
from retraining.runs.results import ResourceNames, RetirementResult
from retraining.runs.state import last_run

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

log = logging.getLogger(__name__)

_KINDS: tuple[Literal["models", "configs", "packages", "folders"], ...]
_KINDS = ("models", "configs", "packages", "folders")
_BATCH = 1000  # the most keys that DeleteObjects takes


def retire(pipeline: Pipeline, location: RunLocation, aws: Aws) -> RetirementResult:
    """Delete what is no longer needed, once the pipeline's endpoint is at rest. A retry deletes what is left.

    Raises RetireError if S3 refuses.
    """
    at_rest(aws, pipeline.endpoint_name, STARTUP_SECONDS)
    found, used = inventory(pipeline, location, aws), usage(aws)
    doomed = _without(found, _kept(pipeline, location, aws, found, used))
    configs = [] if used.unknown else _delete_configs(aws, doomed["configs"])
    deleted: ResourceNames = {"models": [], "configs": configs, "folders": [], "packages": []}
    if configs == doomed["configs"] and not used.unknown:
        deleted["models"] = [name for name in doomed["models"] if _delete_model(aws, name)]
        deleted["packages"] = [arn for arn in doomed["packages"] if _delete_package(aws, arn)]
        deleted["folders"] = [_delete_folder(aws.s3, location, name) for name in doomed["folders"]]
    else:
        log.warning("An endpoint is being updated, so the rest is left to the next run")
    for kind in _KINDS:
        log.info("Deleted %d %s: %s", len(deleted[kind]), kind, ", ".join(deleted[kind]) or "none")
    kept = _without(found, deleted)
    log.info("Kept: %s", kept)
    return {**deleted, "kept": kept}


def _kept(
    pipeline: Pipeline, location: RunLocation, aws: Aws, found: Inventory, used: Usage
) -> ResourceNames:
    number = pipeline.retire.keep
    endpoint = describe_endpoint(aws, pipeline.endpoint_name)
    served = serving(aws, endpoint["EndpointConfigName"]) if endpoint else None
    previous = remembered_previous(aws, served.config_name) if served else None
    configs = {*found.configs[:number], *used.configs, previous}
    configs |= {name for name in found.configs if is_of_run(name, location.run)}
    models = {*found.models[:number], *used.models}
    models |= {name for name in found.models if is_of_run(name, location.run)}
    models |= {model for config in found.configs if config in configs for model in models_of(aws, config)}
    archives = {
        *used.artifacts,
        *artifacts(aws, models.intersection(found.models)),
        *_rollback_targets(pipeline, aws, served.artifact if served else None),
    }
    last = last_run(aws, location)
    folders = {*found.folders[:number], location.run, last["run"] if last else None}
    folders |= {folder_of(archive, location) for archive in archives}
    return {
        "models": [name for name in found.models if name in models],
        "configs": [name for name in found.configs if name in configs],
        "folders": [name for name in found.folders if name in folders],
        "packages": [
            arn
            for arn, archive in found.packages.items()
            if (folder := folder_of(archive, location)) is None or folder in folders
        ],
    }


def _rollback_targets(pipeline: Pipeline, aws: Aws, artifact: str | None) -> set[str]:
    """Archive URIs of the models that successive rollbacks lead to, from the model of `artifact` on."""
    targets: set[str] = set()
    while len(targets) < pipeline.retire.keep - 1:
        package = previous_live(aws, pipeline.package_group, artifact)
        artifact = artifact_of(package) if package else None
        if artifact is None or artifact in targets:
            break
        targets.add(artifact)
    return targets


def _without(found: Inventory, others: ResourceNames) -> ResourceNames:
    return {
        "models": [name for name in found.models if name not in others["models"]],
        "configs": [name for name in found.configs if name not in others["configs"]],
        "folders": [name for name in found.folders if name not in others["folders"]],
        "packages": [arn for arn in found.packages if arn not in others["packages"]],
    }


def _delete_configs(aws: Aws, names: Iterable[str]) -> list[str]:
    """Delete configurations, but stop at one that has come into use. Checks all endpoints before each.

    No deployment of this project uses an old configuration: each creates its own, and the one that a failed
    verification restores is kept.
    """
    deleted = []
    for name in names:
        now = usage(aws)
        if now.unknown or name in now.configs:
            break
        _delete(partial(aws.sagemaker.delete_endpoint_config, EndpointConfigName=name))
        deleted.append(name)
    return deleted


def _delete_model(aws: Aws, name: str) -> bool:
    return _delete(partial(aws.sagemaker.delete_model, ModelName=name))


def _delete_package(aws: Aws, arn: str) -> bool:
    return _delete(partial(aws.sagemaker.delete_model_package, ModelPackageName=arn))


def _delete(request: Callable[[], object]) -> bool:
    """False if somebody else has deleted it already."""
    return or_none(request) is not None


def _delete_folder(s3: S3Client, location: RunLocation, run: str) -> str:
    """Delete every object of a run's folder. Returns the run's name."""
    prefix = f"{location.shared}/{run}/"
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=prefix)
    keys: list[ObjectIdentifierTypeDef] = [
        {"Key": entry["Key"]} for page in pages for entry in page.get("Contents", [])
    ]
    for start in range(0, len(keys), _BATCH):
        batch = keys[start : start + _BATCH]
        response = s3.delete_objects(Bucket=location.bucket, Delete={"Objects": batch, "Quiet": True})
        if errors := response.get("Errors"):
            raise RetireError(
                f"S3 does not delete s3://{location.bucket}/{errors[0].get('Key')}: "
                f"{errors[0].get('Message')}. "
                "Allow s3:DeleteObject on the run folders, or delete them by hand."
            )
    return run
