"""Documents in S3, and links to them."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path
from typing import ClassVar

import boto3
import httpx
import pytest
from botocore.config import Config
from retraining.aws.clients import Aws
from retraining.aws.s3 import content_of, exists, link, read_json, write_json
from tenacity import wait_none

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess

CONTENT = b"a photograph of a dog"
URI = f"s3://{BUCKET}/objects/a document.json"


def test_a_document_is_what_was_written_or_nothing(aws: Aws) -> None:
    assert not exists(aws.s3, URI)
    assert read_json(aws.s3, URI) is None
    assert write_json(aws.s3, URI, {"a": [1]}) == URI
    assert read_json(aws.s3, URI) == {"a": [1]}
    aws.s3.delete_object(Bucket=BUCKET, Key="objects/a document.json")


def test_a_link_opens_the_object_at_the_address_that_browsers_know(
    aws: Aws, runtime: RuntimeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(aws.s3, URI, {})
    shown = httpx.get(link(aws.s3, URI, "application/json"))
    assert (shown.status_code, shown.json(), shown.headers["content-type"]) == (200, {}, "application/json")
    monkeypatch.setenv("RETRAINING_BROWSER_S3_URL", "http://elsewhere:1/")
    assert link(aws.s3, URI).startswith(f"http://elsewhere:1/{BUCKET}/objects/")
    assert read_json(aws.s3, URI) == {}
    aws.s3.delete_object(Bucket=BUCKET, Key="objects/a document.json")


def test_links_are_signed_for_the_address_that_browsers_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = RuntimeProcess(tmp_path, options=("--require-signatures",)).start()
    try:
        keys = json.loads((tmp_path / "credentials.json").read_text())
        extra = {"region_name": "us-east-1", "endpoint_url": signed.url}
        login = {"login": keys["AccessKeyId"], "password": keys["SecretAccessKey"]}
        connection = {"conn_type": "aws", **login, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_SIGNED", json.dumps(connection))
        s3 = Aws("aws_signed").s3
        s3.create_bucket(Bucket=BUCKET)
        write_json(s3, URI, {"a": 1})
        monkeypatch.setenv("RETRAINING_BROWSER_S3_URL", f"http://localhost:{signed.port}")
        address = link(s3, URI)
        assert address.startswith(f"http://localhost:{signed.port}/")
        assert httpx.get(address).json() == {"a": 1}
        assert httpx.get(address.replace("localhost", "127.0.0.1")).status_code == 403
    finally:
        signed.close()


class _Shaky(http.server.BaseHTTPRequestHandler):
    """Responds with an error, then with half of the object, then with all of it."""

    replies: ClassVar[list[tuple[int, bytes]]] = []

    def do_GET(self) -> None:
        status, body = self.replies.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_response_that_is_cut_off_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_of.retry, "wait", wait_none())
    _Shaky.replies = [(503, b""), (200, CONTENT[:10]), (200, CONTENT)]
    with http.server.HTTPServer(("127.0.0.1", 0), _Shaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.server_port}",
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=5),
        )
        assert content_of(s3, "bucket", "key") == CONTENT
        server.shutdown()
    assert _Shaky.replies == []
