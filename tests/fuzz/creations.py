"""Requests that create each kind of resource, good as they are, for fuzzing to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.local_sagemaker.hosting_support import IMAGE as SERVING_IMAGE
from tests.local_sagemaker.hosting_support import variant_of
from tests.local_sagemaker.training_support import IMAGE

BUCKET = "fuzz"
ROLE = "arn:aws:iam::123456789012:role/Fuzz"
CODE = f"s3://{BUCKET}/code/sourcedir.tar.gz"
SCRIPT = f"s3://{BUCKET}/code/train.py"
MODEL_DATA = f"s3://{BUCKET}/model/model.tar.gz"
GROUP = "fuzz-group"
SERVED = "classifier"
"""Name of the model, the configuration and the endpoint that exist."""

_PROGRAM = {"sagemaker_program": "train.py", "sagemaker_submit_directory": CODE}
_LIMIT = {"MaxRuntimeInSeconds": 60}
_OUTPUT = {"S3OutputPath": f"s3://{BUCKET}/output"}
_CLUSTER = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
_OBJECTIVE = {"Type": "Maximize", "MetricName": "accuracy"}
_RATE = {"Name": "rate", "MinValue": "0.1", "MaxValue": "1"}


def _source(uri: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}


def _input(name: str, uri: str) -> dict[str, Any]:
    place = f"/opt/ml/processing/{name}"
    source = {"S3Uri": uri, "LocalPath": place, "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": source}


def creations(name: str) -> Mapping[str, dict[str, Any]]:
    """By operation; every resource is called `name`."""
    training = {
        "RoleArn": ROLE,
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "InputDataConfig": [{"ChannelName": "train", "DataSource": _source(f"s3://{BUCKET}/data")}],
        "OutputDataConfig": _OUTPUT,
        "ResourceConfig": _CLUSTER,
        "StoppingCondition": _LIMIT,
    }
    metrics = [{"Name": "accuracy", "Regex": r"accuracy=(\S+)"}]
    container = {"Image": SERVING_IMAGE, "ModelDataUrl": MODEL_DATA}
    return {
        "CreateTrainingJob": {"TrainingJobName": name, "HyperParameters": _PROGRAM, **training},
        "CreateHyperParameterTuningJob": {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": _OBJECTIVE,
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
                "ParameterRanges": {"ContinuousParameterRanges": [_RATE]},
            },
            "TrainingJobDefinition": {
                **training,
                "AlgorithmSpecification": {
                    "TrainingImage": IMAGE,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": metrics,
                },
                "StaticHyperParameters": _PROGRAM,
            },
        },
        "CreateProcessingJob": {
            "ProcessingJobName": name,
            "RoleArn": ROLE,
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerEntrypoint": ["python3", "/opt/ml/processing/code/train.py"],
            },
            "ProcessingInputs": [_input("code", SCRIPT), _input("data", f"s3://{BUCKET}/data")],
            "ProcessingResources": {"ClusterConfig": _CLUSTER},
            "StoppingCondition": _LIMIT,
        },
        "CreateModelPackageGroup": {"ModelPackageGroupName": name},
        "CreateModelPackage": {
            "ModelPackageGroupName": GROUP,
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": ["image/jpeg"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
            "ModelApprovalStatus": "PendingManualApproval",
        },
        "CreateModel": {"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": container},
        "CreateEndpointConfig": {"EndpointConfigName": name, "ProductionVariants": [variant_of(SERVED)]},
        "CreateEndpoint": {"EndpointName": name, "EndpointConfigName": SERVED},
        "UpdateEndpoint": {"EndpointName": SERVED, "EndpointConfigName": name},
    }
