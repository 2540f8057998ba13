"""Bodies are bounded before they are read, whether their length is declared or not."""

from __future__ import annotations

import select
import socket
from typing import Any

import psutil
import pytest

from tests.local_sagemaker.runtime_process import RuntimeProcess

_CHUNK = b"x" * 1024 * 1024
_AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/{}/aws4_request, Signature=x"
_SENT = 600  # chunks

REQUESTS = [
    ("POST", "/", "sagemaker", {"X-Amz-Target": "SageMaker.ListTrainingJobs"}, 413),
    ("POST", "/", "logs", {"X-Amz-Target": "Logs_20140328.PutLogEvents"}, 413),
    ("POST", "/", "monitoring", {}, 413),
    ("POST", "/endpoints/dogs/invocations", "sagemaker", {}, 413),
    ("POST", "/{bucket}?delete", "s3", {}, 400),
    ("PUT", "/{bucket}?tagging", "s3", {}, 400),
    ("PUT", "/{bucket}/key?tagging", "s3", {}, 400),
    ("POST", "/{bucket}/key?uploadId=x", "s3", {}, 400),
    ("POST", "/{bucket}", "s3", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
]


def _send(runtime: RuntimeProcess, head: list[str], frame: bytes) -> tuple[str, int]:
    """Send a head and then `frame` up to 600 times, until a response comes: response and frames."""
    with socket.create_connection(("127.0.0.1", runtime.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*head, "Host: localhost", "", ""]).encode())
        sent = 0
        while sent < _SENT and not select.select([connection], [], [], 0)[0]:
            try:
                connection.sendall(frame)
            except ConnectionError:  # refused and closed while the body was being sent
                break
            sent += 1
        response = connection.recv(65536)
        if response.endswith(b"\r\n\r\n"):  # the body comes in a packet of its own
            response += connection.recv(65536)
        return response.decode(), sent


@pytest.mark.parametrize(("method", "path", "service", "headers", "status"), REQUESTS)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_large_body_is_refused_unread(  # noqa: PLR0917
    runtime: RuntimeProcess,
    bucket: str,
    method: str,
    path: str,
    service: str,
    headers: dict[str, str],
    status: int,
    declared: bool,
) -> None:
    length = f"Content-Length: {_SENT * len(_CHUNK)}" if declared else "Transfer-Encoding: chunked"
    named = {"Authorization": _AUTHORIZATION.format(service), **headers}
    head = [f"{method} {path.format(bucket=bucket)} HTTP/1.1", length]
    head += [f"{name}: {value}" for name, value in named.items()]
    before = psutil.Process(runtime.pid).memory_info().rss
    frame = _CHUNK if declared else b"%x\r\n%s\r\n" % (len(_CHUNK), _CHUNK)
    response, sent = _send(runtime, head, frame)
    assert response.startswith(f"HTTP/1.1 {status} ")
    assert "too large" in response
    assert "Traceback" not in response
    assert sent < _SENT
    assert psutil.Process(runtime.pid).memory_info().rss - before < 150e6


@pytest.mark.parametrize("length", ["5368709121", "9999999999999999999"])
def test_an_object_has_at_most_5_gib(runtime: RuntimeProcess, s3: Any, bucket: str, length: str) -> None:
    head = [f"PUT /{bucket}/huge HTTP/1.1", f"Content-Length: {length}"]
    response, _ = _send(runtime, head, b"x")
    assert response.startswith("HTTP/1.1 400 ")
    assert "EntityTooLarge" in response
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="huge")
