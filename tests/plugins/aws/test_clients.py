"""Clients from the Airflow connection, and URIs of S3."""

from __future__ import annotations

import json
from typing import Any

import pytest
from retraining.aws.clients import Aws, bucket_of
from retraining.aws.s3 import link, split_uri
from retraining.errors import SettingsError
from retraining.operators.tuning import TuningOperator

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess


def test_the_connection_decides_where_everything_is(aws: Aws, runtime: RuntimeProcess) -> None:
    clients = (aws.s3, aws.sagemaker, aws.runtime, aws.logs, aws.iam, aws.sts)
    assert {client.meta.endpoint_url for client in clients} == {runtime.url}
    assert (aws.region, aws.account) == ("us-east-1", "123456789012")


def test_every_client_retries_in_the_same_way(aws: Aws) -> None:
    clients: list[Any] = [aws.s3, aws.sagemaker, aws.runtime, aws.logs, aws.iam, aws.sts, aws.cloudwatch]
    operator = TuningOperator(task_id="tune", config=None)
    for client in [*clients, operator.client]:
        retries = client.meta.config.retries
        assert (retries["mode"], retries["total_max_attempts"]) == ("standard", 16)


def test_links_are_signed_with_version_4(aws: Aws) -> None:
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in link(aws.s3, "s3://bucket/page.html")


def test_the_bucket_is_the_named_one_or_the_accounts(aws: Aws) -> None:
    assert bucket_of(aws, None) == BUCKET
    assert bucket_of(aws, "mine") == "mine"


def test_a_connection_without_region_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "nowhere")
    connection = {"conn_type": "aws", "login": "test", "password": "test"}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_NOWHERE", json.dumps(connection))
    with pytest.raises(SettingsError, match="The connection aws_nowhere names no region"):
        _ = Aws("aws_nowhere").region


@pytest.mark.parametrize(
    ("uri", "parts"),
    [("s3://b/k/l/", ("b", "k/l")), ("s3://b", ("b", "")), ("s3://b/", ("b", "")), ("s3://b/k", ("b", "k"))],
)
def test_uris_are_split(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts
