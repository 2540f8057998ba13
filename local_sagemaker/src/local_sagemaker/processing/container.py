"""A processing container's start: its command, its configuration files, and its variables.

Format of the files: "How Amazon SageMaker Processing Configures Input and Output For Your Processing
Container" (developer guide).

There is no container here: the job's own folder stands for `/opt/ml`. Container paths are replaced by paths
on this machine wherever the platform passes them to the job: in the entry point, arguments, environment
variables and configuration files. A script that gets its paths from there runs unchanged; one with a
hard-coded `/opt/ml/...` does not. `SAGEMAKER_BASE_DIR`, known from AWS's training toolkit, names the folder.
"""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath
from typing import Any

from local_sagemaker.context import Settings
from local_sagemaker.image_environments import Environment
from local_sagemaker.jobs.container import HOST, default_variables, platform_variables
from local_sagemaker.processing.folders import ProcessingFolders
from local_sagemaker.store import Document

_PYTHON = {"python", "python3"}
_CONFIGURATION = (
    "ProcessingJobArn",
    "ProcessingJobName",
    "AppSpecification",
    "Environment",
    "ProcessingInputs",
    "ProcessingOutputConfig",
    "ProcessingResources",
    "NetworkConfig",
    "RoleArn",
    "StoppingCondition",
)


def command(job: Document, folders: ProcessingFolders, environment: Environment) -> list[str]:
    """The entry point with its arguments; any path to `python3` becomes the environment's Python."""
    application = job["AppSpecification"]
    words: list[str] = [*application["ContainerEntrypoint"], *application.get("ContainerArguments", [])]
    if PurePosixPath(words[0]).name in _PYTHON:
        words[0] = str(environment.python)
    return [folders.localised(word) for word in words]


def write_config(job: Document, folders: ProcessingFolders) -> None:
    """Write `processingjobconfig.json` and `resourceconfig.json`."""
    configuration = {name: job.get(name) for name in _CONFIGURATION}
    resources = {
        "current_host": HOST,
        "hosts": [HOST],
        "network_interface_name": "lo",
        "current_instance_type": job["ProcessingResources"]["ClusterConfig"].get("InstanceType"),
    }
    for name, content in (("processingjobconfig", configuration), ("resourceconfig", resources)):
        text = json.dumps(_localised(content, folders), indent=1)
        (folders.config / f"{name}.json").write_text(text)


def environment_variables(
    job: Document,
    folders: ProcessingFolders,
    image: Environment,
    environment: Environment,
    settings: Settings,
) -> dict[str, str]:
    """The container's variables: AWS's, the request's `Environment`, and the paths on this machine.

    `environment` is the job's own, on top of the `image`'s.
    """
    variables = default_variables()
    if image.python_path is not None:
        variables["PYTHONPATH"] = str(image.python_path)
    variables |= _localised(job.get("Environment", {}), folders)
    path = f"{image.folder / 'bin'}{os.pathsep}{variables.get('PATH', os.defpath)}"
    variables |= platform_variables(folders.base, environment, path, settings)
    variables |= {
        "PROCESSING_JOB_NAME": job["ProcessingJobName"],
        "PROCESSING_JOB_ARN": job["ProcessingJobArn"],
    }
    return variables


def _localised(value: Any, folders: ProcessingFolders) -> Any:
    """A JSON value with paths on this machine in its texts."""
    if isinstance(value, str):
        return folders.localised(value)
    if isinstance(value, list):
        return [_localised(item, folders) for item in value]
    if isinstance(value, dict):
        return {name: _localised(item, folders) for name, item in value.items()}
    return value
