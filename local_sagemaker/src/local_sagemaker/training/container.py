"""A training container's start: its command, the files in `/opt/ml/input/config`, and its variables.

Formats: "How Amazon SageMaker AI Provides Training Information" (developer guide), the readers in AWS's
`sagemaker-training` toolkit 5.1 and, for Debugger, `smdebug/core/json_config.py` and
`smdebug/profiler/profiler_config_parser.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_sagemaker.context import Settings
from local_sagemaker.debugging import statuses
from local_sagemaker.image_environments import Environment
from local_sagemaker.jobs.container import HOST, default_variables, platform_variables
from local_sagemaker.store import Document
from local_sagemaker.training.folders import TrainingFolders

TENSORS = "/opt/ml/output/tensors"
PROFILER = "/opt/ml/output/profiler"
CHECKPOINTS = "/opt/ml/checkpoints"
TENSORBOARD = "/opt/ml/output/tensorboard"
GROUP = "homogeneousCluster"


def command(environment: Environment) -> list[str]:
    """AWS's `train`, the entry point of the training images."""
    return [str(environment.python), "-P", "-m", "sagemaker_training.cli.train"]


def write_config(job: Document, folders: TrainingFolders) -> None:
    """Write the job's configuration files. Raises ValidationError for a LocalPath outside /opt/ml."""
    for name, content in config_files(job, folders).items():
        (folders.config / f"{name}.json").write_text(json.dumps(content, indent=1))


def config_files(job: Document, folders: TrainingFolders) -> dict[str, Any]:
    """File name without `.json` → content."""
    files: dict[str, Any] = {
        "hyperparameters": job.get("HyperParameters", {}),
        "inputdataconfig": {
            item["ChannelName"]: _channel(job, item) for item in job.get("InputDataConfig", [])
        },
        "resourceconfig": _resources(job),
        "upstreamoutputdataconfig": _upstream_output(job, folders),
    }
    if (hook := job.get("DebugHookConfig")) is not None:
        files["debughookconfig"] = {**hook, "LocalPath": str(tensors_folder(job, folders))}
    if statuses.profiles(job):
        files["profilerconfig"] = _profiler(job, folders)
    if (checkpoints := job.get("CheckpointConfig")) is not None:
        files["checkpointconfig"] = {**checkpoints, "LocalPath": str(checkpoints_folder(job, folders))}
    if (tensorboard := job.get("TensorBoardOutputConfig")) is not None:
        files["tensorboardoutputconfig"] = {**tensorboard, "LocalPath": str(tensorboard_folder(job, folders))}
    return files


def tensors_folder(job: Document, folders: TrainingFolders) -> Path:
    return folders.local(job["DebugHookConfig"].get("LocalPath", TENSORS))


def checkpoints_folder(job: Document, folders: TrainingFolders) -> Path:
    return folders.local(job["CheckpointConfig"].get("LocalPath", CHECKPOINTS))


def tensorboard_folder(job: Document, folders: TrainingFolders) -> Path:
    return folders.local(job["TensorBoardOutputConfig"].get("LocalPath", TENSORBOARD))


def profiler_folder(job: Document, folders: TrainingFolders) -> Path:
    parameters = job["ProfilerConfig"].get("ProfilingParameters", {})
    return folders.local(parameters.get("LocalPath", PROFILER))


def _channel(job: Document, channel: Mapping[str, Any]) -> dict[str, str]:
    source = channel["DataSource"]["S3DataSource"]
    return {
        "TrainingInputMode": channel.get("InputMode", job["AlgorithmSpecification"]["TrainingInputMode"]),
        "S3DistributionType": source["S3DataDistributionType"],
        "RecordWrapperType": channel["RecordWrapperType"],
        **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
    }


def _resources(job: Document) -> dict[str, Any]:
    instance_type = job["ResourceConfig"]["InstanceType"]
    return {
        "current_host": HOST,
        "current_instance_type": instance_type,
        "current_group_name": GROUP,
        "hosts": [HOST],
        "instance_groups": [
            {"instance_group_name": GROUP, "instance_type": instance_type, "hosts": [HOST]},
        ],
        "network_interface_name": "lo",
    }


def _upstream_output(job: Document, folders: TrainingFolders) -> list[dict[str, str]]:
    """The output folders that the platform uploads, with their destinations."""
    config: list[dict[str, str]] = []
    for kind, member, local in (
        ("DebugHookConfig", "S3OutputPath", tensors_folder),
        ("TensorBoardOutputConfig", "S3OutputPath", tensorboard_folder),
        ("CheckpointConfig", "S3Uri", checkpoints_folder),
    ):
        if kind in job:
            config.append({"LocalPath": str(local(job, folders)), "S3OutputPath": job[kind][member]})
    return config


def _profiler(job: Document, folders: TrainingFolders) -> dict[str, Any]:
    config = job["ProfilerConfig"]
    parameters = config.get("ProfilingParameters", {})
    if parameters:
        parameters = {**parameters, "LocalPath": str(_in_lower_case(profiler_folder(job, folders), folders))}
    return {**config, "ProfilingParameters": parameters}


def _in_lower_case(folder: Path, folders: TrainingFolders) -> Path:
    """The same folder under a lower-case path: smdebug converts its whole configuration to lower case."""
    if str(folder) == str(folder).lower():
        return folder
    link = _link_to(folders)
    folder.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(folder)
    return link


def _link_to(folders: TrainingFolders) -> Path:
    digest = hashlib.sha256(str(folders.base).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"local-sagemaker-profiler-{digest}"


def clean_up(job: Document, folders: TrainingFolders) -> None:
    """Delete what the container had outside the job's folder."""
    if statuses.profiles(job):
        _link_to(folders).unlink(missing_ok=True)


def environment_variables(
    job: Document, folders: TrainingFolders, environment: Environment, settings: Settings
) -> dict[str, str]:
    """The container's variables: AWS's, the request's `Environment`, and the paths on this machine."""
    variables = {**default_variables(), **environment.variables}
    variables["USE_SMDEBUG"] = str(int("DebugHookConfig" in job))  # "0": the toolkit skips importing PyTorch
    variables |= job.get("Environment", {})
    variables |= platform_variables(folders.base, environment, variables.get("PATH", os.defpath), settings)
    variables |= {
        "TRAINING_JOB_NAME": job["TrainingJobName"],
        "TRAINING_JOB_ARN": job["TrainingJobArn"],
        "SM_STUDIO_LOCAL_MODE": "true",  # keeps the toolkit from waiting for a host named algo-1
    }
    return variables | _config_variables(folders)


def _config_variables(folders: TrainingFolders) -> dict[str, str]:
    """The paths of smdebug's configuration files, which on AWS are fixed paths below /opt/ml."""
    named = {
        "SMDEBUG_CONFIG_FILE_PATH": "debughookconfig",
        "SMPROFILER_CONFIG_PATH": "profilerconfig",
        "CHECKPOINT_CONFIG_FILE_PATH": "checkpointconfig",
        "TENSORBOARD_CONFIG_FILE_PATH": "tensorboardoutputconfig",
    }
    paths = {variable: folders.config / f"{name}.json" for variable, name in named.items()}
    return {variable: str(path) for variable, path in paths.items()}
