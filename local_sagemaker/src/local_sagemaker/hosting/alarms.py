"""CloudWatch alarms on endpoints: moto stores them, and their state is computed here from real invocations.

CloudWatch evaluates whole minutes after their end. Here the last period ends now, so that an alarm changes to
ALARM as soon as its metric breaches the threshold, and local deployments need not wait for minutes.
"""

from __future__ import annotations

import json
import operator
import time
from collections.abc import Iterable
from typing import Any

from moto.cloudwatch.models import Alarm, cloudwatch_backends

from local_sagemaker.context import ACCOUNT
from local_sagemaker.errors import ValidationError
from local_sagemaker.hosting.metrics import METRICS, NAMESPACE, Recorder, is_statistic, statistic
from local_sagemaker.store import Document

OK, ALARM, INSUFFICIENT_DATA = "OK", "ALARM", "INSUFFICIENT_DATA"

_OPERATORS = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
_DEFINITION = (
    *("name", "namespace", "metric_name", "comparison_operator", "evaluation_periods", "datapoints_to_alarm"),
    *("period", "threshold", "statistic", "extended_statistic", "description", "alarm_actions", "ok_actions"),
    *("insufficient_data_actions", "unit", "actions_enabled", "treat_missing_data", "rule"),
    *("evaluate_low_sample_count_percentile", "threshold_metric_id"),
)


class Alarms:
    """The alarms of one region."""

    def __init__(self, recorder: Recorder, region: str) -> None:
        self._recorder = recorder
        self._region = region

    def check(self, names: Iterable[str]) -> None:
        """Raises ValidationError for an alarm that does not exist."""
        missing = [name for name in names if name not in self._known()]
        if missing:
            raise ValidationError(f"The CloudWatch alarm {missing[0]} does not exist in {self._region}.")

    def firing(self, names: Iterable[str]) -> str | None:
        """The first of these alarms that is in state ALARM now, or None."""
        for name in names:
            alarm = self._known().get(name)
            if alarm is not None and self._update(alarm) == ALARM:
                return name
        return None

    def refresh(self) -> None:
        """Update the state of every alarm on an endpoint, for DescribeAlarms."""
        for alarm in list(self._known().values()):
            self._update(alarm)

    def dump(self, names: Iterable[str]) -> list[Document]:
        """The definitions of alarms, for `restore` after a restart: moto keeps them in memory only."""
        known = self._known()
        return [_definition(known[name]) for name in names if name in known]

    def restore(self, definitions: Iterable[Document]) -> None:
        """Create the alarms that do not exist."""
        known = self._known()
        for definition in definitions:
            if definition["name"] not in known:
                known[definition["name"]] = Alarm(
                    account_id=ACCOUNT, region_name=self._region, metric_data_queries=None, **definition
                )

    def _known(self) -> dict[str, Alarm]:
        alarms: dict[str, Alarm] = cloudwatch_backends[ACCOUNT][self._region].alarms
        return alarms

    def _update(self, alarm: Alarm) -> str:
        """Update and return an alarm's state.

        Alarms on other metrics than an endpoint's, on bands or on unknown statistics keep their state.
        """
        dimensions = {item.name: item.value for item in alarm.dimensions}
        if _measurable(alarm) and {"EndpointName", "VariantName"} == set(dimensions):
            state, reason = self._evaluate(alarm, dimensions["EndpointName"], dimensions["VariantName"])
            if state != alarm.state_value:
                alarm.update_state(reason, json.dumps({"version": "1.0"}), state)
        return str(alarm.state_value)

    def _evaluate(self, alarm: Alarm, endpoint: str, variant: str) -> tuple[str, str]:
        """State and reason by CloudWatch's rule: M out of N datapoints breach the threshold."""
        points = self._points(alarm, endpoint, variant)
        present = [point for point in points if point is not None]
        missing = alarm.treat_missing_data or "missing"
        if not present and missing == "missing":
            return INSUFFICIENT_DATA, "There are no datapoints."
        if not present and missing == "ignore":
            return str(alarm.state_value), ""
        breaches = _OPERATORS[alarm.comparison_operator]
        count = sum(breaches(point, float(alarm.threshold)) for point in present)
        if missing == "breaching":
            count += len(points) - len(present)
        shown = ", ".join(f"{point:g}" for point in present)
        reason = f"{count} of {len(points)} datapoints breach the threshold ({alarm.threshold:g}): [{shown}]"
        needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
        return (ALARM if count >= needed else OK), reason

    def _points(self, alarm: Alarm, endpoint: str, variant: str) -> list[float | None]:
        """The statistic of each evaluation period, newest first; None for a period without invocations."""
        now, period = time.time(), float(alarm.period)
        name = alarm.extended_statistic or alarm.statistic
        points = []
        for index in range(int(alarm.evaluation_periods)):
            end = now - index * period
            values = self._recorder.values(endpoint, variant, alarm.metric_name, end - period, end)
            points.append(statistic(name, values) if values else None)
        return points


def _measurable(alarm: Alarm) -> bool:
    return (
        alarm.namespace == NAMESPACE
        and alarm.metric_name in METRICS
        and alarm.comparison_operator in _OPERATORS
        and is_statistic(alarm.extended_statistic or alarm.statistic or "")
        and not alarm.rule
    )


def _definition(alarm: Alarm) -> Document:
    definition: dict[str, Any] = {member: getattr(alarm, member) for member in _DEFINITION}
    definition["dimensions"] = [{"Name": item.name, "Value": item.value} for item in alarm.dimensions]
    return definition
