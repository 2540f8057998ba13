"""Data capture: an endpoint's requests and responses, in S3 in AWS's format."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.local_sagemaker.hosting_support import HostingClient
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for


@pytest.fixture(scope="module")
def hosting(runtime: RuntimeProcess, bucket: str, role_arn: str) -> HostingClient:
    return HostingClient(runtime, bucket, role_arn)


def captured(hosting: HostingClient, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    """Key and record of everything under a prefix."""
    found = []
    for item in hosting.s3.list_objects_v2(Bucket=hosting.bucket, Prefix=prefix).get("Contents", []):
        text = hosting.s3.get_object(Bucket=hosting.bucket, Key=item["Key"])["Body"].read().decode()
        found += [(item["Key"], json.loads(line)) for line in text.splitlines()]
    return found


def test_requests_and_responses_are_captured(hosting: HostingClient) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{hosting.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }
    endpoint = hosting.endpoint(hosting.config(hosting.model("one"), DataCaptureConfig=capture))
    shown = hosting.sagemaker.describe_endpoint(EndpointName=endpoint)["DataCaptureConfig"]
    assert (shown["CaptureStatus"], shown["CurrentSamplingPercentage"]) == ("Started", 100)
    hosting.invoke(endpoint, {"value": 3}, InferenceId="image-7")
    with pytest.raises(hosting.inference.exceptions.ModelError):
        hosting.invoke(endpoint, {"error": "not kept"})

    prefix = f"captured/{endpoint}/AllTraffic/"
    [(key, record)] = wait_for(lambda: captured(hosting, prefix), 20, "the capture file")
    assert re.fullmatch(prefix + r"\d{4}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl", key)
    sides = record["captureData"]
    assert sides["endpointInput"] == {
        "observedContentType": "application/json",
        "mode": "INPUT",
        "data": '{"value": 3}',
        "encoding": "JSON",
    }
    assert json.loads(sides["endpointOutput"]["data"])["value"] == 3.0
    assert record["eventMetadata"]["inferenceId"] == "image-7"
    assert record["eventVersion"] == "0"
    hosting.delete(endpoint)


def test_other_content_types_are_base64(hosting: HostingClient) -> None:
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{hosting.bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}],
    }
    endpoint = hosting.endpoint(hosting.config(hosting.model("one"), DataCaptureConfig=capture))
    hosting.invoke(endpoint, {"value": 3})
    [(_, record)] = wait_for(lambda: captured(hosting, f"captured/{endpoint}/"), 20, "the capture file")
    assert record["captureData"].keys() == {"endpointInput"}
    assert base64.b64decode(record["captureData"]["endpointInput"]["data"]) == b'{"value": 3}'
    hosting.delete(endpoint)
