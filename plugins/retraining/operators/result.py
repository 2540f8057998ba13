"""The typed result of an operator."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from retraining.runs.lineage import Traced

R_co = TypeVar("R_co", covariant=True)


class Returns(Traced, Generic[R_co]):
    """An operator whose `execute` returns an R."""

    @property
    def result(self) -> R_co:
        """What the task will return, for the tasks that take it; while the DAG is declared, an XComArg."""
        return cast("R_co", self.output)
