"""CloudWatch alarms on an endpoint: creating them and reading their states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retraining.aws.responses import contains

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef


@dataclass(frozen=True)
class AlarmState:
    """The current state of an alarm; `reason` holds the figures that led to it."""

    name: str
    state: str
    reason: str

    @property
    def on(self) -> bool:
        return self.state == "ALARM"

    def __str__(self) -> str:
        return f"{self.name} is {self.state}" + (f" ({self.reason})" if self.reason else "")


def put_alarms(cloudwatch: CloudWatchClient, requests: Iterable[PutMetricAlarmInputTypeDef]) -> None:
    """Create the alarms that do not exist, and update those that differ from their request."""
    wanted = {request["AlarmName"]: request for request in requests}
    if not wanted:
        return
    for alarm in cloudwatch.describe_alarms(AlarmNames=list(wanted))["MetricAlarms"]:
        if contains(alarm, wanted[alarm["AlarmName"]]):
            del wanted[alarm["AlarmName"]]
    for request in wanted.values():
        cloudwatch.put_metric_alarm(**request)


def alarm_states(cloudwatch: CloudWatchClient, names: Sequence[str]) -> list[AlarmState]:
    """The states of the alarms with these names; an alarm that does not exist is left out."""
    if not names:
        return []
    return [
        AlarmState(alarm["AlarmName"], alarm["StateValue"], alarm.get("StateReason", ""))
        for alarm in cloudwatch.describe_alarms(AlarmNames=list(names))["MetricAlarms"]
    ]
