"""The processing job that evaluates a run's models on the test split, as a request.

SageMaker starts a processing container without unpacking code, so the entry point does. Every path is in the
request, so that a platform without containers can replace it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from retraining.planning.common import PlannedRun
from retraining.planning.images import training_image
from retraining.runs.naming import attempt_name

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import ProcessingInstanceTypeType
    from mypy_boto3_sagemaker.type_defs import (
        CreateProcessingJobRequestTypeDef,
        ProcessingInputTypeDef,
    )

FOLDER = "/opt/ml/processing"
OUTPUT = "evaluation"
DOCUMENT = "evaluation.json"
PREDICTIONS = "predictions.jsonl"
MODEL_QUALITY = "model_quality.json"
IMAGES = "images"
"""Folder of the test images that the evaluation keeps, `<class>/<file>`."""
_ALL = 1_000_000  # the most images that the script keeps
_SEED = 0  # of the bootstrap, so that the same models on the same images get the same decision

# At most 256 characters, as each word of an entry point.
_START = (
    f'set -e; mkdir -p "{FOLDER}/code"; cd "{FOLDER}/code"; '
    f'tar -xzf "{FOLDER}/input/code/sourcedir.tar.gz"; '
    'exec python3 evaluate.py "$@"'
)


def evaluation_request(run: PlannedRun) -> CreateProcessingJobRequestTypeDef:
    """The CreateProcessingJob request, but for the models, which `with_models` adds.

    The script needs no data digest: it is there so that a finished job of the same URIs with other images
    behind them is not adopted as this one.
    """
    settings = run.pipeline.evaluation
    arguments = {
        "test": f"{FOLDER}/input/test",
        "output": f"{FOLDER}/output",
        "confidence": run.pipeline.gate.confidence,
        "bootstrap-samples": settings.bootstrap_samples,
        "latency-images": settings.latency_images,
        "kept-images": run.pipeline.verify.images or _ALL,
        "seed": _SEED,
    }
    inputs = {"code": run.code, "test": f"{run.dataset}/test/"}
    if run.left_out:
        inputs["left_out"] = run.left_out
        arguments["left-out"] = f"{FOLDER}/input/left_out"
    return {
        "ProcessingJobName": attempt_name(run.name, 1),
        "RoleArn": run.role,
        "AppSpecification": {
            "ImageUri": training_image(run, settings.instance_type),
            "ContainerEntrypoint": ["/bin/bash", "-c", _START, "evaluate"],
            "ContainerArguments": _words(arguments),
        },
        "Environment": {"DATA_DIGEST": run.data},
        "ProcessingInputs": [_input(name, uri) for name, uri in inputs.items()],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": OUTPUT,
                    "S3Output": {
                        "S3Uri": f"{run.output}/{OUTPUT}",
                        "LocalPath": f"{FOLDER}/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": cast("ProcessingInstanceTypeType", settings.instance_type),
                "InstanceCount": 1,
                "VolumeSizeInGB": settings.volume_size_gb,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
        "Tags": run.tags,
    }


def with_models(
    planned: CreateProcessingJobRequestTypeDef, artifacts: Mapping[str, str]
) -> CreateProcessingJobRequestTypeDef:
    """The request with the URI of each role's model.tar.gz: `challenger` and, if there is one, `champion`.

    Attempts that compare other models write to another folder.
    """
    application = planned["AppSpecification"]
    folders = {role: f"{FOLDER}/input/{role}" for role in artifacts}
    digest = hashlib.sha256(json.dumps(artifacts, sort_keys=True).encode()).hexdigest()[:8]
    output = planned["ProcessingOutputConfig"]["Outputs"][0]
    uri = f"{output['S3Output']['S3Uri']}/{digest}"
    return {
        **planned,
        "AppSpecification": {
            **application,
            "ContainerArguments": [*application["ContainerArguments"], *_words(folders)],
        },
        "ProcessingInputs": [
            *planned["ProcessingInputs"],
            *(_input(role, uri) for role, uri in artifacts.items()),
        ],
        "ProcessingOutputConfig": {"Outputs": [{**output, "S3Output": {**output["S3Output"], "S3Uri": uri}}]},
    }


def _words(arguments: Mapping[str, object]) -> list[str]:
    return [word for name, value in arguments.items() for word in (f"--{name}", str(value))]


def _input(name: str, uri: str) -> ProcessingInputTypeDef:
    """An object, or what lies under a prefix, as files in the container's folder of this name."""
    return {
        "InputName": name,
        "S3Input": {
            "S3Uri": uri,
            "LocalPath": f"{FOLDER}/input/{name}",
            "S3DataType": "S3Prefix",
            "S3InputMode": "File",
        },
    }
