"""Data capture: an endpoint's requests and responses as JSON lines in S3, in AWS's format.

Enabled by `DataCaptureConfig` of an endpoint configuration. Records are written every few seconds to
`<DestinationS3Uri>/<endpoint>/<variant>/yyyy/mm/dd/hh/<minute>-<second>-<millisecond>-<id>.jsonl`.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import sqlite3
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_sagemaker.hosting.invocation import CUSTOM_ATTRIBUTES, INFERENCE_ID, Invocation
from local_sagemaker.s3.objects import BucketMissingError, Objects
from local_sagemaker.store import Document

logger = logging.getLogger(__name__)


class DataCapture:
    """Collects records of invocations and writes them to S3."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._lines: dict[str, list[str]] = defaultdict(list)

    def observe(self, invocation: Invocation) -> None:
        """Record a successful invocation if its endpoint's configuration captures data."""
        config = invocation.capture
        if not config.get("EnableCapture") or not 200 <= invocation.status < 300:
            return
        if random.random() * 100 >= config["InitialSamplingPercentage"]:  # noqa: S311 - sampling
            return
        prefix = "/".join([config["DestinationS3Uri"].rstrip("/"), invocation.endpoint, invocation.variant])
        line = json.dumps(record(invocation))
        with self._lock:
            self._lines[prefix].append(line)

    def flush(self) -> None:
        """Write the records since the last call, one object for each endpoint and variant."""
        with self._lock:
            batches, self._lines = self._lines, defaultdict(list)
        for prefix, lines in batches.items():
            uri = f"{prefix}/{datetime.now(UTC):%Y/%m/%d/%H/%M-%S-%f}"[:-3] + f"-{uuid.uuid4()}.jsonl"
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "capture.jsonl"
                file.write_text("\n".join(lines) + "\n")
                try:
                    self._objects.upload(file, uri)
                except (BucketMissingError, OSError, sqlite3.OperationalError) as error:
                    logger.warning("lost %d captured requests: %s", len(lines), error)


def record(invocation: Invocation) -> Document:
    """One line of a capture file."""
    modes = {option["CaptureMode"] for option in invocation.capture["CaptureOptions"]}
    data: dict[str, Any] = {}
    if modes & {"Input", "InputAndOutput"}:
        data["endpointInput"] = _side(
            "INPUT", invocation.request_headers, invocation.request_body, invocation.capture
        )
    if invocation.response is not None and modes & {"Output", "InputAndOutput"}:
        data["endpointOutput"] = _side(
            "OUTPUT", invocation.response.headers, invocation.response.body, invocation.capture
        )
    metadata = {
        "eventId": str(uuid.uuid4()),
        "inferenceTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if CUSTOM_ATTRIBUTES in invocation.request_headers:
        metadata["customAttributes"] = invocation.request_headers[CUSTOM_ATTRIBUTES]
    if INFERENCE_ID in invocation.request_headers:
        metadata["inferenceId"] = invocation.request_headers[INFERENCE_ID]
    return {"captureData": data, "eventMetadata": metadata, "eventVersion": "0"}


def describe(config: Document) -> Document:
    """The DataCaptureConfig of DescribeEndpoint, from that of the configuration."""
    enabled = bool(config.get("EnableCapture"))
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def _side(mode: str, headers: Mapping[str, str], body: bytes, config: Document) -> Document:
    content_type = headers.get("Content-Type", "")
    encoding = _encoding(content_type, config.get("CaptureContentTypeHeader", {}))
    data = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode(errors="replace")
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}


def _encoding(content_type: str, listed: Document) -> str:
    """CSV or JSON (kept as text) for the configuration's content types, BASE64 for others."""
    media_type = content_type.partition(";")[0].strip().lower()
    for encoding, member in (("CSV", "CsvContentTypes"), ("JSON", "JsonContentTypes")):
        if media_type in {item.lower() for item in listed.get(member, [])}:
            return encoding
    return "BASE64"
