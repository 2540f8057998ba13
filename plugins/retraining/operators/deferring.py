"""Waiting for SageMaker without a worker: an operator defers to the triggerer, or follows on its worker."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from retraining.errors import NoAnswerError
from retraining.jobs.following import Event, Follower, follow
from retraining.operators.result import R_co, Returns

if TYPE_CHECKING:
    from airflow.sdk import Context

_AFTER_DEADLINE = timedelta(minutes=10)
"""A trigger ends at its deadline; Airflow's own time-out, which works without a triggerer, comes later."""


def defer_by_default() -> bool:
    """Airflow's `default_deferrable` where the environment sets it (managed Airflow does the same), else yes.

    The airflow.cfg that Airflow writes at its first start says `false` without anybody having meant it.
    """
    if "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ:
        return bool(conf.getboolean("operators", "default_deferrable"))
    return True


class Resumption(TypedDict):
    """What a trigger gives back: its event, and the method, its arguments and the operator to go on with."""

    event: Event
    then: str
    state: dict[str, Any]
    saved: dict[str, Any]


class DeferringOperator(Returns[R_co]):
    """An operator that waits with a `Follower`. `deferrable` None means `defer_by_default`."""

    deferrable: bool
    aws_conn_id: str | None

    def wait(
        self,
        context: Context,
        follower: Follower,
        limit: timedelta,
        then: Callable[..., R_co],
        *,
        stops: bool = False,
        **state: Any,
    ) -> R_co:
        """`then(context, event, **state)`, once the follower has ended or the limit has passed.

        `then` is a method of this operator, `state` is JSON. With `stops`, killing the deferred task stops
        what is followed. Raises TaskDeferred where the operator defers and there is something to wait for.
        """
        if self.execution_timeout is not None:
            limit = min(limit, self.execution_timeout)
        deadline = datetime.now(UTC) + limit
        if not self.deferrable:
            return then(context, follow(follower, deadline, self.log.log), **state)
        for line in follower.poll():
            self.log.log(line.level, "%s", line.text)
        if follower.ended:
            return then(context, {"outcome": follower.outcome()}, **state)
        from retraining.operators.trigger import FollowTrigger

        trigger = FollowTrigger(
            type(follower).__name__,
            follower.arguments,
            follower.aws.connection,
            deadline=deadline.isoformat(),
            position=follower.position,
            stops=stops,
            carried={"then": then.__name__, "state": state, "saved": self.saved()},
        )
        raise TaskDeferred(trigger=trigger, method_name="resume", timeout=limit + _AFTER_DEADLINE)

    def resume(self, context: Context, event: Resumption) -> R_co:
        """Go on after a deferral. Raises NoAnswerError where the trigger could find nothing out."""
        self.restore(event["saved"])
        found = event["event"]
        if "error" in found:
            raise NoAnswerError(found["error"])
        result: R_co = getattr(self, event["then"])(context, found, **event["state"])
        return result

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's, but a time-out of the deferral is handled as one that the trigger has noticed."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self.restore({})
            return self.timed_out(context)

    def saved(self) -> dict[str, Any]:
        """What `restore` needs after a deferral, as JSON."""
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Bring the operator, in a new process, to where it was when it saved this; `{}` at the start."""

    @abstractmethod
    def timed_out(self, context: Context) -> R_co:
        """What to do when no triggerer was there at the deadline."""
