"""Documents in S3, and links to them."""

from __future__ import annotations

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
    aws.s3.delete_object(Bucket=BUCKET, Key="objects/a document.json")
