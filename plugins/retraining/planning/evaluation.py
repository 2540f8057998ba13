"""The processing job that evaluates a run's models on the test split, as a request.

SageMaker starts a processing container without unpacking code and without installing its requirements, so the
entry point does both. Every path is in the request: a platform without containers can then put others there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from retraining.config.pipeline import Pipeline
from retraining.runs.naming import attempt_name

Request = dict[str, Any]

FOLDER = "/opt/ml/processing"
OUTPUT = "evaluation"
DOCUMENT = "evaluation.json"
PREDICTIONS = "predictions.jsonl"
MODEL_QUALITY = "model_quality.json"
_SEED = 0  # of the bootstrap: the same models on the same pictures are judged the same way

# At most 256 characters, as each word of an entry point. Pip needs no network where all requirements are met.
_START = (
    f'set -e; mkdir -p "{FOLDER}/code"; cd "{FOLDER}/code"; '
    f'tar -xzf "{FOLDER}/input/code/sourcedir.tar.gz"; '
    "python3 -m pip install -q --root-user-action=ignore -r requirements.txt; "
    'exec python3 evaluate.py "$@"'
)


def planned_evaluation(
    pipeline: Pipeline,
    *,
    name: str,
    role: str,
    image: str,
    output: str,
    code_uri: str,
    test_uri: str,
    data: str,
    tags: list[Request],
) -> Request:
    """The CreateProcessingJob request, but for the models, which `with_models` adds.

    `name` is the run's name and `output` the URI of its folder; `image` is a PyTorch training container.
    `data` is the digest of the data set: the script needs none, but a finished job of the same URIs with
    other pictures behind them must not pass for this one.
    """
    settings = pipeline.evaluation
    arguments = {
        "test": f"{FOLDER}/input/test",
        "output": f"{FOLDER}/output",
        "confidence": pipeline.gate.confidence,
        "bootstrap-samples": settings.bootstrap_samples,
        "latency-images": settings.latency_images,
        "seed": _SEED,
    }
    return {
        "ProcessingJobName": attempt_name(name, 1),
        "RoleArn": role,
        "AppSpecification": {
            "ImageUri": image,
            "ContainerEntrypoint": ["/bin/bash", "-c", _START, "evaluate"],
            "ContainerArguments": _words(arguments),
        },
        "Environment": {"DATA_DIGEST": data},
        "ProcessingInputs": [_input("code", code_uri), _input("test", f"{test_uri.rstrip('/')}/")],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": OUTPUT,
                    "S3Output": {
                        "S3Uri": f"{output}/{OUTPUT}",
                        "LocalPath": f"{FOLDER}/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceType": settings.instance_type,
                "InstanceCount": 1,
                "VolumeSizeInGB": settings.volume_size_gb,
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": settings.max_runtime_seconds},
        "Tags": tags,
    }


def with_models(planned: Request, artifacts: Mapping[str, str]) -> Request:
    """The request with the URI of each role's model.tar.gz: `challenger` and, if there is one, `champion`.

    The results go to a folder of these models, so that attempts which compare others do not share one.
    """
    application = planned["AppSpecification"]
    folders = {role: f"{FOLDER}/input/{role}" for role in artifacts}
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
        "ProcessingOutputConfig": _output_of(planned, artifacts),
    }


def _output_of(planned: Request, artifacts: Mapping[str, str]) -> Request:
    digest = hashlib.sha256(json.dumps(artifacts, sort_keys=True).encode()).hexdigest()[:8]
    output = planned["ProcessingOutputConfig"]["Outputs"][0]
    place = {**output["S3Output"], "S3Uri": f"{output['S3Output']['S3Uri']}/{digest}"}
    return {"Outputs": [{**output, "S3Output": place}]}


def _words(arguments: Mapping[str, Any]) -> list[str]:
    return [word for name, value in arguments.items() for word in (f"--{name}", str(value))]


def _input(name: str, uri: str) -> Request:
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
