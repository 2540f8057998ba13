"""Chooses the instance for a request, by shares of fleets, weights of variants and requests in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from local_sagemaker.hosting.fleet import Fleet
from local_sagemaker.hosting.fleet_record import VariantRecord
from local_sagemaker.hosting.worker import Worker


class NoSuchVariantError(Exception):
    """The request's target variant is in no fleet with traffic."""


class NoWorkerError(Exception):
    """No instance of the chosen variant was ready in time."""


@dataclass(frozen=True)
class Lease:
    """An instance reserved for one request."""

    fleet: Fleet
    variant: str
    worker: Worker


@dataclass(eq=False)
class _Route:
    fleet: Fleet
    variant: VariantRecord
    share: float
    credit: float = 0.0

    @property
    def weight(self) -> float:
        return self.share * self.variant.weight


class Router:
    """The traffic of one endpoint. `gate` guards its state, so that changes of traffic are atomic."""

    def __init__(self) -> None:
        self.gate = threading.Condition()
        self._routes: list[_Route] = []

    @property
    def serving(self) -> bool:
        return bool(self._routes)

    def set_traffic(self, shares: Sequence[tuple[Fleet, float]]) -> None:
        """Give each fleet its share of the traffic, 0 to 1; other fleets get no new requests."""
        with self.gate:
            self._routes = [
                _Route(fleet, variant, share) for fleet, share in shares for variant in fleet.record.variants
            ]
            self.gate.notify_all()

    @contextmanager
    def lease(self, target: str | None, seconds: float) -> Iterator[Lease]:
        """Reserve the least busy ready instance of a variant, waiting up to `seconds` for one.

        Without a target, variants take turns by weight (smooth weighted round robin, as in nginx), so that
        shares are met within a few requests. Raises NoSuchVariantError or NoWorkerError.
        """
        lease = self._acquire(target, time.monotonic() + seconds)
        try:
            yield lease
        finally:
            with self.gate:
                lease.worker.in_flight -= 1
                self.gate.notify_all()

    def _acquire(self, target: str | None, deadline: float) -> Lease:
        with self.gate:
            route = self._choose(target)
            while (worker := _least_busy(route)) is None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise NoWorkerError(route.variant.name)
                self.gate.wait(min(remaining, 1.0))
                if route not in self._routes:
                    route = self._choose(target)
            worker.in_flight += 1
            worker.last_used = time.monotonic()
            return Lease(route.fleet, route.variant.name, worker)

    def _choose(self, target: str | None) -> _Route:
        routes = [route for route in self._routes if target in {None, route.variant.name}]
        if not routes:
            raise NoSuchVariantError(target)
        if not any(route.weight for route in routes):
            return max(routes, key=lambda route: route.share)
        for route in routes:
            route.credit += route.weight
        chosen = max(routes, key=lambda route: route.credit)
        chosen.credit -= sum(route.weight for route in routes)
        return chosen


def _least_busy(route: _Route) -> Worker | None:
    ready = [worker for worker in route.fleet.workers.get(route.variant.name, ()) if worker.ready]
    return min(ready, key=lambda worker: (worker.in_flight, worker.last_used), default=None)
