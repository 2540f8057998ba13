"""Clients of the local SageMaker's port: the same boto3 calls as on AWS, with another endpoint."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from demo.settings import REGION

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sts import STSClient


def keys(credentials: Path | None) -> tuple[str, str]:
    """Access key and secret key: those of the file, where it is there, else any.

    Airflow hides a password wherever it stands in a log, so that of anyone is no word that means anything
    else.
    """
    if credentials is None or not credentials.exists():
        return "anyone", "not-a-secret"
    document = json.loads(credentials.read_text())
    return document["AccessKeyId"], document["SecretAccessKey"]


def make_keys(credentials: Path) -> None:
    """Make the local SageMaker's file of keys before its first start, for those who need them earlier."""
    if credentials.exists():
        return
    credentials.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "Version": 1,
        "AccessKeyId": "LOCAL" + secrets.token_hex(8).upper(),
        "SecretAccessKey": secrets.token_urlsafe(30),
    }
    partial = credentials.with_name(f"{credentials.name}.{os.getpid()}")
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(document) + "\n")
    partial.replace(credentials)


@dataclass(frozen=True)
class Aws:
    """The services at one address; each client is made when it is first asked for.

    `credentials` is the local SageMaker's file of keys; without it any keys are used, which it takes unless
    it requires signatures. `own_bucket` is the bucket that a pipeline's file names.
    """

    url: str
    credentials: Path | None = None
    own_bucket: str | None = None

    @cached_property
    def session(self) -> boto3.Session:
        key, secret = keys(self.credentials)
        return boto3.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION)

    @property
    def config(self) -> Config:
        return Config(s3={"addressing_style": "path"}, max_pool_connections=16, proxies={})

    @cached_property
    def s3(self) -> S3Client:
        return self.session.client("s3", endpoint_url=self.url, config=self.config)

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        return self.session.client("cloudwatch", endpoint_url=self.url, config=self.config)

    @cached_property
    def iam(self) -> IAMClient:
        return self.session.client("iam", endpoint_url=self.url, config=self.config)

    @cached_property
    def sts(self) -> STSClient:
        return self.session.client("sts", endpoint_url=self.url, config=self.config)

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        return self.session.client("logs", endpoint_url=self.url, config=self.config)

    @cached_property
    def sagemaker(self) -> SageMakerClient:
        return self.session.client("sagemaker", endpoint_url=self.url, config=self.config)

    @cached_property
    def runtime(self) -> SageMakerRuntimeClient:
        return self.session.client("sagemaker-runtime", endpoint_url=self.url, config=self.config)

    @cached_property
    def bucket(self) -> str:
        """The pipeline's own bucket, or the one that the SageMaker SDK uses by default."""
        return self.own_bucket or f"sagemaker-{REGION}-{self.sts.get_caller_identity()['Account']}"
