"""CloudWatch alarms on an endpoint: what they watch, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retraining.config.sections import Alarms

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

Request = dict[str, Any]

# CloudWatch adds up the figures of the old fleet and the new one: in an average or a lower percentile, a
# slow canary of a few percent drowns in the answers of the old fleet.
_LATENCY_STATISTIC = "p99"
_MICROSECONDS = 1000  # of a millisecond; CloudWatch has ModelLatency in microseconds


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


def alarm_requests(alarms: Alarms, endpoint: str, variant: str) -> list[Request]:
    """PutMetricAlarm requests for the alarms that are wanted of a variant.

    A period without requests is not an alarm: an endpoint that nobody asks is not a broken one.
    """
    shared = {
        "Namespace": "AWS/SageMaker",
        "Dimensions": [
            {"Name": "EndpointName", "Value": endpoint},
            {"Name": "VariantName", "Value": variant},
        ],
        "Period": alarms.period_seconds,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    requests: list[Request] = []
    if alarms.max_5xx is not None:
        requests.append(
            {
                "AlarmName": f"{endpoint}-5xx",
                "AlarmDescription": f"The endpoint {endpoint} answers with status 5xx.",
                "MetricName": "Invocation5XXErrors",
                "Statistic": "Sum",
                "Threshold": float(alarms.max_5xx),
                **shared,
            }
        )
    if alarms.max_latency_ms is not None:
        requests.append(
            {
                "AlarmName": f"{endpoint}-latency",
                "AlarmDescription": f"The model of the endpoint {endpoint} is slow.",
                "MetricName": "ModelLatency",
                "ExtendedStatistic": _LATENCY_STATISTIC,
                "Threshold": alarms.max_latency_ms * _MICROSECONDS,
                **shared,
            }
        )
    return requests


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
