"""Runs an operator as Airflow does: on a worker, in the triggerer while it is deferred, on a worker again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from airflow.sdk import Context
from airflow.sdk.exceptions import TaskDeferred
from retraining.operators.deferring import DeferringOperator
from retraining.operators.trigger import FollowTrigger


def complete(make: Callable[[], DeferringOperator[Any]], context: Context | None = None) -> Any:
    """What the task returns. `make` gives a new operator for each process that Airflow would start."""
    context = context or Context()
    operator = make()
    try:
        return operator.execute(context)
    except TaskDeferred as deferral:
        pending = deferral
    while True:
        event = asyncio.run(_event(restored(pending)))
        try:
            return make().resume_execution(pending.method_name, {"event": event}, context)
        except TaskDeferred as deferral:
            pending = deferral


def restored(deferral: TaskDeferred) -> FollowTrigger:
    """The trigger, made from what Airflow stores of it."""
    path, arguments = deferral.trigger.serialize()
    assert path == "retraining.operators.trigger.FollowTrigger"
    return FollowTrigger(**arguments)


async def _event(trigger: FollowTrigger) -> Any:
    async for event in trigger.run():
        return event.payload
    raise AssertionError("the trigger ended without an event")
