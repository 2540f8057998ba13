"""The state of an endpoint: what it serves, how far an update is, and how to restore a configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws
from retraining.aws.responses import archive_of, or_none, primary_container
from retraining.aws.tags import tags_of
from retraining.deployment.alarms import alarm_states
from retraining.errors import DeploymentError
from retraining.jobs.following import Follower, Line, follow
from retraining.jobs.polling import ENDPOINT_SECONDS
from retraining.planning.deployment import STARTUP_SECONDS

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import (
        DescribeEndpointConfigOutputTypeDef,
        DescribeEndpointOutputTypeDef,
        DescribeModelOutputTypeDef,
        ProductionVariantOutputTypeDef,
    )

log = logging.getLogger(__name__)

MOVING = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}
"""Statuses of an endpoint that SageMaker is still working on."""
PREVIOUS_TAG = "previous"
"""Tag of an endpoint configuration: the name of the configuration that it replaced."""


@dataclass(frozen=True)
class Serving:
    """An endpoint configuration and its model."""

    config: DescribeEndpointConfigOutputTypeDef
    model: DescribeModelOutputTypeDef

    @property
    def config_name(self) -> str:
        return self.config["EndpointConfigName"]

    @property
    def variant(self) -> ProductionVariantOutputTypeDef:
        return self.config["ProductionVariants"][0]

    @property
    def artifact(self) -> str | None:
        """URI of the model's archive."""
        return archive_of(primary_container(self.model))


class EndpointFollower(Follower):
    """Follows the endpoint `name` until SageMaker has finished with it, and shows every change.

    The outcome's `fired` are the texts of `alarms` that were on at any poll: they may be off by the end.
    """

    clients = ("sagemaker", "cloudwatch")
    description: DescribeEndpointOutputTypeDef | None = None

    @property
    def subject(self) -> str:
        return f"the endpoint {self.arguments['name']}"

    def news(self) -> Iterator[Line]:
        self.description = describe_endpoint(self.aws, self.arguments["name"])
        if self.description is not None:
            yield from self._changes(self.description)
        self.ended = self.description is None or self.description["EndpointStatus"] not in MOVING

    def pause(self, passed: float) -> float:  # noqa: ARG002
        return ENDPOINT_SECONDS

    def outcome(self) -> dict[str, Any]:
        return {"fired": list(self.position.get("fired", {}).values())}

    def _changes(self, description: DescribeEndpointOutputTypeDef) -> Iterator[Line]:
        shown, fired = self.position.setdefault("shown", {}), self.position.setdefault("fired", {})
        texts = {"status": f"The endpoint {self.arguments['name']} is {description['EndpointStatus']}"}
        if text := stage(description):
            texts["stage"] = text
        for what, text in texts.items():
            if shown.get(what) != text:
                shown[what] = text
                yield Line(text)
        for alarm in alarm_states(self.aws.cloudwatch, self.arguments.get("alarms", ())):
            if alarm.on:
                fired[alarm.name] = str(alarm)
            if shown.get(alarm.name) != alarm.state:
                shown[alarm.name] = alarm.state
                yield Line(f"Alarm {alarm}", logging.WARNING if alarm.on else logging.INFO)


class AlarmsFollower(Follower):
    """Waits for `alarms` that are on to go off, but not beyond the time `until` (ISO 8601).

    The outcome's `on` are the texts of those that stay on, by name.
    """

    clients = ("cloudwatch",)

    @property
    def subject(self) -> str:
        return "the endpoint's alarms"

    def news(self) -> Iterator[Line]:
        states = alarm_states(self.aws.cloudwatch, self.arguments["alarms"])
        self.position = {"on": {alarm.name: str(alarm) for alarm in states if alarm.on}}
        late = datetime.now(UTC) >= datetime.fromisoformat(self.arguments["until"])
        self.ended = late or not self.position["on"]
        if not self.ended:
            yield Line(f"Waiting for {'; '.join(self.position['on'].values())}")

    def pause(self, passed: float) -> float:  # noqa: ARG002
        return ENDPOINT_SECONDS

    def outcome(self) -> dict[str, Any]:
        return dict(self.position)


def at_rest(aws: Aws, endpoint: str, limit_seconds: float) -> DescribeEndpointOutputTypeDef | None:
    """Wait for the end of any change; the endpoint's description, or None if it does not exist.

    Raises DeploymentError if it still changes after `limit_seconds`.
    """
    follower = EndpointFollower(aws, {"name": endpoint})
    event = follow(follower, datetime.now(UTC) + timedelta(seconds=limit_seconds), log.log)
    if event.get("timed_out") and follower.description is not None:
        raise still_changing(follower.description, limit_seconds)
    return follower.description


def still_changing(description: DescribeEndpointOutputTypeDef, limit_seconds: float) -> DeploymentError:
    """The error for an endpoint that takes too long."""
    return DeploymentError(
        f"The endpoint {description['EndpointName']} is still {description['EndpointStatus']} after "
        f"{limit_seconds:.0f} s: {stage(description) or 'no stage is known'}. SageMaker goes on with it: "
        "clear this task to keep waiting, or raise deployment.max_runtime_seconds in the pipeline file."
    )


def describe_endpoint(aws: Aws, endpoint: str) -> DescribeEndpointOutputTypeDef | None:
    """The DescribeEndpoint response, or None if the endpoint does not exist."""
    return or_none(partial(aws.sagemaker.describe_endpoint, EndpointName=endpoint))


def stage(description: DescribeEndpointOutputTypeDef) -> str:
    """The progress of an update in a sentence; empty if none is running or SageMaker reports none."""
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
    return f"Updating to {pending['EndpointConfigName']}: {'; '.join(texts) or 'just begun'}"


def serving(aws: Aws, config: str) -> Serving | None:
    """The configuration with its first variant's model; None if either of them was deleted."""
    described = describe_config(aws, config)
    if described is None:
        return None
    name = described["ProductionVariants"][0]["ModelName"]
    model = or_none(partial(aws.sagemaker.describe_model, ModelName=name))
    return None if model is None else Serving(described, model)


def models_of(aws: Aws, config: str) -> list[str]:
    """Names of a configuration's models; none if the configuration was deleted."""
    described = describe_config(aws, config)
    variants = described["ProductionVariants"] if described else []
    return [variant["ModelName"] for variant in variants if "ModelName" in variant]


def remember_previous(aws: Aws, config: str, previous: str | None) -> None:
    """Tag a configuration with the name of the one that it is about to replace."""
    aws.sagemaker.add_tags(
        ResourceArn=_config_arn(aws, config), Tags=[{"Key": PREVIOUS_TAG, "Value": previous or ""}]
    )


def remembered_previous(aws: Aws, config: str) -> str | None:
    """The configuration that this one replaced; None if it was the endpoint's first."""
    return tags_of(aws, _config_arn(aws, config)).get(PREVIOUS_TAG) or None


def restore(aws: Aws, endpoint: str, config: str, *, instead_of: str) -> None:
    """Put a configuration back into service, with all traffic at once, and wait until it serves.

    Raises DeploymentError if the endpoint does not run `instead_of`, or does not serve `config` in the end.
    """
    current = at_rest(aws, endpoint, STARTUP_SECONDS)
    running = current["EndpointConfigName"] if current else None
    if running != instead_of:
        raise DeploymentError(
            f"The endpoint {endpoint} no longer runs {instead_of} but {running}: another deployment has "
            "changed it in the meantime."
        )
    log.warning("Restoring %s at the endpoint %s", config, endpoint)
    aws.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    after = at_rest(aws, endpoint, STARTUP_SECONDS)
    if after is None:
        raise DeploymentError(f"The endpoint {endpoint} was deleted while {config} was being restored.")
    if after["EndpointStatus"] != "InService" or after["EndpointConfigName"] != config:
        raise DeploymentError(
            f"The endpoint {endpoint} is {after['EndpointStatus']} with {after['EndpointConfigName']}: "
            f"{after.get('FailureReason', 'no reason given')}. Read its log and start the rollback DAG."
        )


def describe_config(aws: Aws, config: str) -> DescribeEndpointConfigOutputTypeDef | None:
    """The DescribeEndpointConfig response, or None if the configuration does not exist."""
    return or_none(partial(aws.sagemaker.describe_endpoint_config, EndpointConfigName=config))


def _config_arn(aws: Aws, config: str) -> str:
    return aws.sagemaker.describe_endpoint_config(EndpointConfigName=config)["EndpointConfigArn"]
