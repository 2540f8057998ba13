"""Documents in S3, and links to them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, link, read_json, write_json

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess

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
