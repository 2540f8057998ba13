"""What an account asks of every request: its network, its encryption keys, its tags.

The members and their limits are those of SageMaker's API; what a pipeline file leaves out is in no request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retraining.config.pipeline import Pipeline
from retraining.runs.results import DeploymentRequest

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        CreateHyperParameterTuningJobRequestTypeDef,
        CreateProcessingJobRequestTypeDef,
        CreateTrainingJobRequestTypeDef,
        TagTypeDef,
    )

# Families whose instances have local NVMe storage, encrypted by their hardware; SageMaker takes no key for
# it: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
_LOCAL_STORAGE = re.compile(
    r"ml\.(g4dn|g5|g6e?|gr6|g7e?|p3dn|p4de?|p5e?n?|p6\S*|trn\d\S*|[a-z]+\d+[a-z]*d[a-z]*)\."
)

# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Tag.html
_TAG_VALUE = re.compile(r"[\w\s.:/=+\-@]{0,256}")


def secure_tuning(request: CreateHyperParameterTuningJobRequestTypeDef, pipeline: Pipeline) -> None:
    """Give a tuning job's trials the account's network and keys."""
    _secure_training(request["TrainingJobDefinition"], pipeline)


def secure_training(request: CreateTrainingJobRequestTypeDef, pipeline: Pipeline) -> None:
    """Give a training job the account's network and keys."""
    _secure_training(request, pipeline)


def secure_processing(request: CreateProcessingJobRequestTypeDef, pipeline: Pipeline) -> None:
    """Give a processing job the account's network and keys."""
    if network := _network(pipeline):
        _merge(request, {"NetworkConfig": network})
    _merge(request["ProcessingOutputConfig"], _output_key(pipeline))
    cluster = request["ProcessingResources"]["ClusterConfig"]
    _merge(cluster, _volume_key(pipeline, cluster["InstanceType"]))


def secure_deployment(request: DeploymentRequest, pipeline: Pipeline) -> None:
    """Give a model and an endpoint configuration the account's network and keys."""
    config = request["EndpointConfig"]
    _merge(request["Model"], _network(pipeline))
    instance_type = config["ProductionVariants"][0].get("InstanceType", "")
    _merge(config, {"KmsKeyId": key for key in _volume_key(pipeline, instance_type).values()})  # noqa: B035
    if "DataCaptureConfig" in config:
        _merge(config["DataCaptureConfig"], _output_key(pipeline))


def tags_of(pipeline: Pipeline, **own: str) -> list[TagTypeDef]:
    """The pipeline file's tags, the pipeline's name, and tags of one's own; the latter two win.

    A tag of one's own whose value no tag can have, as a run id that a person chose may be, is left out.
    """
    merged = {
        **pipeline.tags,
        "pipeline": pipeline.name,
        **{key: value for key, value in own.items() if _TAG_VALUE.fullmatch(value)},
    }
    return [{"Key": key, "Value": value} for key, value in merged.items()]


def _secure_training(request: Any, pipeline: Pipeline) -> None:
    resources = request["ResourceConfig"]
    _merge(request, _network(pipeline))
    _merge(request["OutputDataConfig"], _output_key(pipeline))
    _merge(resources, _volume_key(pipeline, resources["InstanceType"]))


def _merge(request: Any, members: Mapping[str, Any]) -> None:
    request.update(members)


def _network(pipeline: Pipeline) -> dict[str, Any]:
    network = pipeline.network
    members: dict[str, Any] = {}
    if network.subnets:
        members["VpcConfig"] = {"Subnets": network.subnets, "SecurityGroupIds": network.security_group_ids}
    if network.isolation:
        members["EnableNetworkIsolation"] = True
    return members


def _output_key(pipeline: Pipeline) -> dict[str, str]:
    """Of what jobs and endpoints write to S3. Airflow's own objects take the bucket's default."""
    key = pipeline.encryption.kms_key
    return {"KmsKeyId": key} if key else {}


def _volume_key(pipeline: Pipeline, instance_type: str) -> dict[str, str]:
    """Where the instance type has a volume that takes a key."""
    key = pipeline.encryption.volume_key
    return {"VolumeKmsKeyId": key} if key and not _LOCAL_STORAGE.match(instance_type) else {}
