"""CloudWatch alarms on an endpoint: what they watch, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

Request = dict[str, Any]


@dataclass(frozen=True)
class AlarmState:
    """An alarm as CloudWatch sees it now; `reason` holds the figures that led to the state."""

    name: str
    state: str
    reason: str

    @property
    def on(self) -> bool:
        return self.state == "ALARM"

    def __str__(self) -> str:
        return f"{self.name} is {self.state}" + (f" ({self.reason})" if self.reason else "")


def put_alarms(cloudwatch: CloudWatchClient, requests: Iterable[Request]) -> None:
    """Create the alarms, or change those that exist and are different."""
    wanted = {request["AlarmName"]: request for request in requests}
    if not wanted:
        return
    for alarm in cloudwatch.describe_alarms(AlarmNames=list(wanted))["MetricAlarms"]:
        if wanted[alarm["AlarmName"]].items() <= alarm.items():
            del wanted[alarm["AlarmName"]]
    for request in wanted.values():
        cloudwatch.put_metric_alarm(**request)


def alarm_states(cloudwatch: CloudWatchClient, names: Sequence[str]) -> list[AlarmState]:
    """The states of the alarms of these names that exist."""
    if not names:
        return []
    answer = cloudwatch.describe_alarms(AlarmNames=list(names))
    return [
        AlarmState(alarm["AlarmName"], alarm["StateValue"], alarm.get("StateReason", ""))
        for alarm in answer["MetricAlarms"]
    ]
