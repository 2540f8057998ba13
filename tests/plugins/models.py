"""Small models that respond as a test wants, and the requests that put them into service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Context
from retraining.aws.clients import Aws
from retraining.operators.endpoint import EndpointOperator
from retraining.registry.registry import ensure_group, mark_live
from retraining.runs.results import EndpointResult

from tests.dags.airflow_home import BUCKET, ROLE_ARN
from tests.plugins.conftest import INFERENCE_IMAGE, archive

VARIANT = "AllTraffic"
ENVIRONMENT = {"SM_RAYSERVE_APP": "deployment:app"}

# Responds with `response`, or with the request if that is None. `load` and `predict` are statements; the
# latter may call `report` to write the line that the classifier's own code writes about its requests.
_SCRIPT = """
import datetime
import json
import os
import time

from ray import serve
from starlette.responses import Response


def report(failed):
    line = {{
        "model": os.environ["RETRAINING_MODEL"],
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "requests": 1,
        "failed": failed,
        "p99_ms": 5.0,
    }}
    print("traffic: " + json.dumps(line), flush=True)


@serve.deployment
class Model:
    def __init__(self):
        {load}

    async def __call__(self, request):
        body = await request.body()
        {predict}
        return Response({response!r} or body, media_type="application/json")


app = Model.bind()
"""


def model_archive(response: str | None = None, *, load: str = "pass", predict: str = "pass") -> bytes:
    """A model.tar.gz of a model that echoes, or always responds with `response`."""
    return archive(deployment=_SCRIPT.format(response=response, load=load, predict=predict))


def put_model(
    s3: Any, key: str, response: str | None = None, *, load: str = "pass", predict: str = "pass"
) -> str:
    """Put a model's archive into the bucket; its URI."""
    s3.put_object(Bucket=BUCKET, Key=key, Body=model_archive(response, load=load, predict=predict))
    return f"s3://{BUCKET}/{key}"


def deployment_request(
    name: str, endpoint: str, artifact: str, *, tags: dict[str, str] | None = None, **members: Any
) -> Any:
    """The `config` of EndpointOperator for one model; `members` go into its endpoint configuration."""
    container = {
        "Image": INFERENCE_IMAGE,
        "ModelDataUrl": artifact,
        "Environment": {**ENVIRONMENT, "RETRAINING_MODEL": name},
    }
    variant = {
        "VariantName": VARIANT,
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }
    listed = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    return {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": container,
            "ExecutionRoleArn": ROLE_ARN,
            "Tags": listed,
        },
        "EndpointConfig": {
            "EndpointConfigName": name,
            "ProductionVariants": [variant],
            "Tags": listed,
            **members,
        },
        "Endpoint": {"EndpointName": endpoint, "EndpointConfigName": name, "Tags": []},
    }


def deploy(config: Any, **arguments: Any) -> EndpointResult:
    """Put a model into service as the task `deploy` does; `arguments` are those of EndpointOperator."""
    result: EndpointResult = EndpointOperator(
        task_id="deploy", config=config, deferrable=False, **arguments
    ).execute(Context())
    return result


def register_model(aws: Aws, group: str, artifact: str, live: str | None = None) -> str:
    """Register a model as an approved version of a group, which may be new; `live` is the endpoint
    configuration under which it is or was in service. Returns its ARN.
    """
    sagemaker = aws.sagemaker
    if not sagemaker.list_model_package_groups(NameContains=group)["ModelPackageGroupSummaryList"]:
        sagemaker.create_model_package_group(ModelPackageGroupName=group)
    container = {"Image": INFERENCE_IMAGE, "ModelDataUrl": artifact, "Environment": ENVIRONMENT}
    specification: Any = {
        "Containers": [container],
        "SupportedContentTypes": ["image/jpeg"],
        "SupportedResponseMIMETypes": ["application/json"],
    }
    arn = sagemaker.create_model_package(
        ModelPackageGroupName=group, InferenceSpecification=specification, ModelApprovalStatus="Approved"
    )["ModelPackageArn"]
    if live:
        mark_live(aws, arn, datetime.now(UTC), live)
    return arn


def put_version(aws: Aws, group: str, artifact: str, status: str = "Approved") -> str:
    """Register a version without a run; its ARN."""
    ensure_group(aws, group, "dog_breed")
    request: Any = {
        "ModelPackageGroupName": group,
        "InferenceSpecification": {
            "Containers": [{"Image": INFERENCE_IMAGE, "ModelDataUrl": artifact}],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        "ModelApprovalStatus": status,
    }
    return str(aws.sagemaker.create_model_package(**request)["ModelPackageArn"])
