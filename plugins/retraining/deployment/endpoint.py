"""Endpoints as they run: what is in service, what is on its way, and how to go back.

Import inside a task only: it loads boto3.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, primary_container
from retraining.deployment.alarms import AlarmState, alarm_states
from retraining.errors import DeploymentError
from retraining.planning.deployment import STARTUP_SECONDS

log = logging.getLogger(__name__)

Answer = Mapping[str, Any]

MOVING = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
PREVIOUS_TAG = "previous"
"""Tag of an endpoint configuration: the one that it replaced."""

_POLL_SECONDS = 2.0
_MISSING = {"ValidationException", "ResourceNotFound"}


@dataclass(frozen=True)
class Serving:
    """What an endpoint configuration serves."""

    config: Answer
    model: Answer

    @property
    def config_name(self) -> str:
        return str(self.config["EndpointConfigName"])

    @property
    def variant(self) -> Answer:
        variant: Answer = self.config["ProductionVariants"][0]
        return variant

    @property
    def artifact(self) -> str | None:
        """URI of the model's archive."""
        return archive_of(primary_container(self.model))


@dataclass
class Watch:
    """Follows an endpoint until it rests, and logs whatever changes on the way.

    `fired` keeps the alarms that were on at any look since `begin`: they may be off again when somebody asks.
    """

    aws: Aws
    endpoint: str
    alarms: Sequence[str] = ()
    fired: dict[str, AlarmState] = field(default_factory=dict)
    _shown: dict[str, str] = field(default_factory=dict)

    def begin(self, alarms: Sequence[str]) -> None:
        """From here on these alarms watch; what any did before is not the deployment's."""
        self.alarms, self.fired = alarms, {}

    def rest(self, limit_seconds: float) -> Answer | None:
        """The endpoint's description once nothing goes on any more; None where it does not exist.

        Raises DeploymentError after `limit_seconds`.
        """
        deadline = time.monotonic() + limit_seconds
        while True:
            description = describe_endpoint(self.aws, self.endpoint)
            if description is None:
                return None
            self._show(description)
            if description["EndpointStatus"] not in MOVING:
                return description
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"The endpoint {self.endpoint} is still {description['EndpointStatus']} after "
                    f"{limit_seconds:.0f} s: {stage(description) or 'no stage is known'}. SageMaker goes on "
                    "with it: clear this task to follow it further, or raise "
                    "deployment.max_runtime_seconds in the pipeline file."
                )
            time.sleep(_POLL_SECONDS)

    def _show(self, description: Answer) -> None:
        self._changed("status", f"The endpoint {self.endpoint} is {description['EndpointStatus']}")
        if text := stage(description):
            self._changed("stage", text)
        for alarm in alarm_states(self.aws.cloudwatch, self.alarms):
            if alarm.on:
                self.fired[alarm.name] = alarm
            if self._shown.get(alarm.name) != alarm.state:
                self._shown[alarm.name] = alarm.state
                log.log(logging.WARNING if alarm.on else logging.INFO, "Alarm %s", alarm)

    def _changed(self, what: str, text: str) -> None:
        if self._shown.get(what) != text:
            self._shown[what] = text
            log.info("%s", text)


def describe_endpoint(aws: Aws, endpoint: str) -> Answer | None:
    """DescribeEndpoint's answer, or None where there is no such endpoint."""
    return or_none(lambda: aws.sagemaker.describe_endpoint(EndpointName=endpoint))


def or_none(describe: Callable[[], Answer]) -> Answer | None:
    """A description, or None where SageMaker knows nothing of the name."""
    try:
        return describe()
    except ClientError as error:
        if error.response["Error"]["Code"] in _MISSING:
            return None
        raise


def stage(description: Answer) -> str:
    """How far an update is, in a sentence; empty where none goes on or SageMaker does not say."""
    pending = description.get("PendingDeploymentSummary")
    if not pending:
        return ""
    statuses = [
        status for variant in pending.get("ProductionVariants", []) for status in variant["VariantStatus"]
    ]
    texts = [
        status["Status"] + (f", {status['StatusMessage']}" if status.get("StatusMessage") else "")
        for status in statuses
    ]
    return f"On its way to {pending['EndpointConfigName']}: {'; '.join(texts) or 'just begun'}"


def serving(aws: Aws, config: str) -> Serving | None:
    """What a configuration serves, by its first variant; None where it or its model is gone."""
    described = or_none(lambda: aws.sagemaker.describe_endpoint_config(EndpointConfigName=config))
    if described is None:
        return None
    name = described["ProductionVariants"][0]["ModelName"]
    model = or_none(lambda: aws.sagemaker.describe_model(ModelName=name))
    return None if model is None else Serving(described, model)


def models_of(aws: Aws, config: str) -> list[str]:
    """Names of the models of a configuration; none where it is gone."""
    described = or_none(lambda: aws.sagemaker.describe_endpoint_config(EndpointConfigName=config))
    variants = described["ProductionVariants"] if described else []
    return [variant["ModelName"] for variant in variants if "ModelName" in variant]


def remember_previous(aws: Aws, config: str, previous: str | None) -> None:
    """Write down, on a configuration, which one it is about to replace."""
    tags: list[Any] = [{"Key": PREVIOUS_TAG, "Value": previous or ""}]
    aws.sagemaker.add_tags(ResourceArn=_config_arn(aws, config), Tags=tags)


def remembered_previous(aws: Aws, config: str) -> str | None:
    """The configuration that this one replaced; None where it was the endpoint's first."""
    return tags_of(aws, _config_arn(aws, config)).get(PREVIOUS_TAG) or None


def tags_of(aws: Aws, arn: str) -> dict[str, str]:
    """All tags of a resource."""
    pages = aws.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}


def restore(aws: Aws, endpoint: str, config: str, *, instead_of: str) -> None:
    """Bring a configuration back into service, all at once, and wait until it serves.

    Raises DeploymentError where the endpoint does not run `instead_of`, or does not get there.
    """
    watch = Watch(aws, endpoint)
    running = (watch.rest(STARTUP_SECONDS) or {}).get("EndpointConfigName")
    if running != instead_of:
        raise DeploymentError(
            f"The endpoint {endpoint} runs {running}, not {instead_of} any more: another deployment came "
            "between."
        )
    log.warning("Restoring %s at the endpoint %s", config, endpoint)
    aws.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    after = watch.rest(STARTUP_SECONDS) or {}
    if after.get("EndpointStatus") != "InService" or after.get("EndpointConfigName") != config:
        raise DeploymentError(
            f"The endpoint {endpoint} is {after.get('EndpointStatus')} with "
            f"{after.get('EndpointConfigName')}: {after.get('FailureReason', 'no reason given')}. Read its "
            "log and start the rollback DAG."
        )


def _config_arn(aws: Aws, config: str) -> str:
    return aws.sagemaker.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
