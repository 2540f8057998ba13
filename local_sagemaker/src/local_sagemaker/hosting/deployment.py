"""Shifts traffic from an endpoint's old fleet to its new one, by the DeploymentConfig of UpdateEndpoint."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local_sagemaker.errors import ValidationError
from local_sagemaker.store import Document

GUARD_SECONDS = 0.5  # between two polls of the alarms during bake time


class RolledBackError(Exception):
    """An alarm changed to ALARM during the deployment; the text is a FailureReason."""


class DeploymentInterruptedError(Exception):
    """The runtime ends during the deployment; the next runtime starts it again."""


@dataclass(frozen=True)
class Step:
    """Give the new fleet `share` of the traffic (0 to 1), and poll the alarms for `bake_seconds`."""

    share: float
    bake_seconds: float


def plan(config: Document | None, instances: int) -> list[Step]:
    """The steps of a deployment to a fleet of `instances`; without a policy, all at once.

    Raises ValidationError for a policy that is invalid or not supported here.
    """
    policy = (config or {}).get("BlueGreenUpdatePolicy")
    if policy is None:
        if config and "RollingUpdatePolicy" in config:
            raise ValidationError("This runtime has no rolling updates: use a BlueGreenUpdatePolicy.")
        return [Step(1.0, 0.0)]
    routing = policy["TrafficRoutingConfiguration"]
    wait = float(routing["WaitIntervalInSeconds"])
    if routing["Type"] == "CANARY":
        return [Step(_instances(routing, "CanarySize", instances) / instances, wait), Step(1.0, wait)]
    if routing["Type"] == "LINEAR":
        size = _instances(routing, "LinearStepSize", instances)
        moved = range(size, instances + size, size)
        return [Step(min(1.0, number / instances), wait) for number in moved]
    return [Step(1.0, wait)]


def alarm_names(config: Document | None) -> list[str]:
    """The alarms that roll a deployment back."""
    alarms = (config or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    return [alarm["AlarmName"] for alarm in alarms]


def termination_wait(config: Document | None) -> float:
    """Seconds for which the old fleet is kept after it has lost its traffic."""
    return float((config or {}).get("BlueGreenUpdatePolicy", {}).get("TerminationWaitInSeconds", 0))


def shift(
    steps: Sequence[Step],
    set_share: Callable[[float], None],
    alarm: Callable[[], str | None],
    interrupted: threading.Event,
) -> None:
    """Go through the steps. `alarm` returns the name of an alarm in state ALARM, or None.

    Raises RolledBackError as soon as there is one, also before the first step, and
    DeploymentInterruptedError when `interrupted` is set.
    """
    _check(alarm)
    for step in steps:
        set_share(step.share)
        bake(step.bake_seconds, alarm, interrupted)


def bake(seconds: float, alarm: Callable[[], str | None], interrupted: threading.Event) -> None:
    """Poll the alarms for `seconds`. Raises as `shift` does."""
    deadline = time.monotonic() + seconds
    while (remaining := deadline - time.monotonic()) > 0:
        hold(min(remaining, GUARD_SECONDS), interrupted)
        _check(alarm)


def hold(seconds: float, interrupted: threading.Event) -> None:
    """Wait for `seconds`. Raises DeploymentInterruptedError when `interrupted` is set."""
    if interrupted.wait(seconds):
        raise DeploymentInterruptedError


def _check(alarm: Callable[[], str | None]) -> None:
    if (name := alarm()) is not None:
        raise RolledBackError(f"The deployment was rolled back: the alarm {name} is in state ALARM.")


def _instances(routing: Document, member: str, instances: int) -> int:
    """A CapacitySize as a number of instances, because traffic moves with whole ones; at least one.

    Raises ValidationError outside AWS's limits: at most half of the fleet, and steps of a tenth or more.
    """
    if member not in routing:
        raise ValidationError(f"Traffic routing of type {routing['Type']} needs {member}.")
    size = routing[member]
    percent = size["Type"] == "CAPACITY_PERCENT"
    number = max(1, size["Value"] * instances // 100) if percent else int(size["Value"])
    smallest = 0.1 if member == "LinearStepSize" else 0.0
    share = size["Value"] / 100 if percent else number / instances
    if not smallest <= share <= 0.5 or number > instances / 2:
        raise ValidationError(
            f"{member} is {number} of the new fleet's {instances} instances ({share:.0%} requested); it must "
            f"be {smallest:.0%} to 50% of them."
        )
    return number
