"""Clients for the AWS services, all through one Airflow connection and with one configuration.

The connection decides credentials, region and address (`endpoint_url`): nothing else distinguishes AWS from a
local runtime. Importing boto3 takes a while, so it happens in the functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from retraining.errors import SettingsError

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sts import STSClient

CONNECTION = "aws_default"

CLIENT_CONFIG: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 16}}
"""Arguments of botocore's Config for every client of the Airflow side: these, the provider's hooks, SNS.

Throttling, errors of the service and dropped connections are retried with exponential backoff of at most 20 s
and half of that on average: fifteen retries outlast a pause of more than a minute
(https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html).
"""


@dataclass(frozen=True)
class Aws:
    """The services that the pipeline talks to. `connection` is the id of an Airflow connection."""

    connection: str = CONNECTION

    @cached_property
    def region(self) -> str:
        """The connection's region. Raises SettingsError where it names none."""
        from botocore.exceptions import NoRegionError

        try:
            return self.sagemaker.meta.region_name
        except NoRegionError as error:
            raise SettingsError(
                f'The connection {self.connection} names no region; add {{"region_name": ...}} to its extra.'
            ) from error

    @cached_property
    def account(self) -> str:
        return self.sts.get_caller_identity()["Account"]

    @cached_property
    def s3(self) -> S3Client:
        """With a connection for each thread that reads a dataset.

        Links are signed with version 4, which boto3 uses in us-east-1 only on request: buckets created since
        2020 refuse version 2.
        """
        return cast("S3Client", self._client("s3", max_pool_connections=32, signature_version="s3v4"))

    @cached_property
    def sagemaker(self) -> SageMakerClient:
        return cast("SageMakerClient", self._client("sagemaker"))

    @cached_property
    def runtime(self) -> SageMakerRuntimeClient:
        """Waits longer than the 60 seconds after which SageMaker responds for a model that hangs."""
        return cast("SageMakerRuntimeClient", self._client("sagemaker-runtime", read_timeout=70))

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        return cast("CloudWatchLogsClient", self._client("logs"))

    @cached_property
    def cloudwatch(self) -> CloudWatchClient:
        return cast("CloudWatchClient", self._client("cloudwatch"))

    @cached_property
    def iam(self) -> IAMClient:
        return cast("IAMClient", self._client("iam"))

    @cached_property
    def sts(self) -> STSClient:
        return cast("STSClient", self._client("sts"))

    def _client(self, service: str, **config: Any) -> object:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
        from botocore.config import Config

        hook = AwsBaseHook(
            aws_conn_id=self.connection, client_type=service, config=Config(**{**CLIENT_CONFIG, **config})
        )
        return hook.get_conn()


def bucket_of(aws: Aws, named: str | None) -> str:
    """The bucket that is named, or the one that the SageMaker SDK uses by default."""
    return named or f"sagemaker-{aws.region}-{aws.account}"
