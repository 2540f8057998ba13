"""All instances of one endpoint configuration: started together, watched, drained and stopped together."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from local_sagemaker.errors import ApiError
from local_sagemaker.hosting.fleet_record import FleetRecord, VariantRecord
from local_sagemaker.hosting.launch import Launcher
from local_sagemaker.hosting.model_data import ModelDataError
from local_sagemaker.hosting.worker import Worker
from local_sagemaker.lasting import attempt
from local_sagemaker.logs import LogFollower

logger = logging.getLogger(__name__)

STARTING_SECONDS = 0.1  # between two polls while an instance is not ready
WATCHING_SECONDS = 0.5  # between two polls while all instances are ready
DRAIN_SECONDS = 60.0  # the timeout of an invocation; nothing is in flight for longer
REASON_CHARACTERS = 1024  # of a FailureReason


class FleetFailedError(Exception):
    """The fleet cannot serve; the text is a FailureReason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:REASON_CHARACTERS])


class FleetInterruptedError(Exception):
    """The runtime ends while the fleet starts; the next runtime continues from the same state."""


class Fleet:
    """The running instances of a FleetRecord. `gate` guards the workers' flags and is shared with the
    endpoint's router; `closing` is set when the runtime ends.
    """

    def __init__(
        self,
        record: FleetRecord,
        endpoint: str,
        launcher: Launcher,
        gate: threading.Condition,
        closing: threading.Event,
    ) -> None:
        self.record = record
        self.workers: dict[str, list[Worker]] = {}
        self._endpoint = endpoint
        self._launcher = launcher
        self._gate = gate
        self._closing = closing
        self._followers: dict[str, LogFollower] = {}
        self._polling = threading.Lock()  # of the followers
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._supervisor = threading.Thread(target=self._watch, name=f"{endpoint}-{record.id}", daemon=True)

    def start(self) -> None:
        """Prepare the models, and start the thread that starts or finds the processes. Raises
        FleetFailedError.
        """
        for variant in self.record.variants:
            self.grow(variant, variant.instances)
        self._supervisor.start()

    def wait_ready(self, instances: Collection[str] = ()) -> None:
        """Wait until these instances, or all, are ready.

        Raises FleetFailedError if one cannot start, FleetInterruptedError when the runtime ends.
        """
        with self._gate:
            while waiting := self._not_ready(instances):
                if self._closing.is_set():
                    raise FleetInterruptedError(self.record.id)
                for variant, worker in waiting:
                    _check(variant, worker)
                self._gate.wait(STARTING_SECONDS)

    def grow(self, variant: VariantRecord, instances: Sequence[str]) -> None:
        """Add instances to a variant; they start in the background. Raises FleetFailedError."""
        try:
            make = self._launcher.prepare(self._endpoint, self.record, variant)
        except (ModelDataError, ApiError) as error:
            raise FleetFailedError(str(error)) from error
        workers = [Worker(make(name), self._gate) for name in instances]
        for worker in workers:
            self._followers[worker.instance.id] = self._launcher.follow(self._endpoint, worker.instance.log)
        with self._gate:
            self.workers[variant.name] = [*self.workers.get(variant.name, []), *workers]
        self._wake.set()

    def shrink(self, variant: str, instances: Sequence[str]) -> None:
        """Take instances out of the traffic, wait for their requests in flight, and stop them."""
        with self._gate:
            leaving = [worker for worker in self.workers[variant] if worker.instance.id in instances]
            self.workers[variant] = [worker for worker in self.workers[variant] if worker not in leaving]
        self._drain(leaving)
        _stop(leaving)
        for worker in leaving:
            shutil.rmtree(worker.instance.folder, ignore_errors=True)
            self._poll([self._followers.pop(worker.instance.id)], final=True)

    def retire(self) -> None:
        """Drain and stop all instances and delete their files. The router must not use the fleet any more."""
        self._drain(list(self._all()))
        self.close()
        shutil.rmtree(self._launcher.folder(self._endpoint, self.record.id), ignore_errors=True)

    def close(self) -> None:
        """Stop all instances and keep their files, so that the fleet can be started again."""
        self._stopping.set()
        self.nudge()
        if self._supervisor.is_alive():
            self._supervisor.join()
        _stop(list(self._all()))
        self._poll(list(self._followers.values()), final=True)

    def nudge(self) -> None:
        """Poll now, because an instance was lost."""
        self._wake.set()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            attempt(self._poll_workers, f"Polling the instances of the endpoint {self._endpoint}")
            settled = all(worker.ready for worker in self._all())
            self._wake.wait(WATCHING_SECONDS if settled else STARTING_SECONDS)
            self._wake.clear()

    def _poll_workers(self) -> None:
        for worker in list(self._all()):
            worker.tick()
        self._poll(list(self._followers.values()))

    def _poll(self, followers: Sequence[LogFollower], *, final: bool = False) -> None:
        with self._polling:
            for follower in followers:
                follower.poll(final=final)

    def _drain(self, workers: Sequence[Worker]) -> None:
        """Wait until nothing is in flight, or until the runtime ends; processes have a grace period."""
        deadline = time.monotonic() + DRAIN_SECONDS
        with self._gate:
            while any(worker.in_flight for worker in workers) and time.monotonic() < deadline:
                if self._closing.is_set():
                    return
                self._gate.wait(1.0)

    def _not_ready(self, instances: Collection[str]) -> list[tuple[str, Worker]]:
        return [
            (variant, worker)
            for variant, workers in self.workers.items()
            for worker in workers
            if not worker.ready and (not instances or worker.instance.id in instances)
        ]

    def _all(self) -> Iterator[Worker]:
        for workers in list(self.workers.values()):
            yield from workers


def _check(variant: str, worker: Worker) -> None:
    if worker.failures:
        raise FleetFailedError(
            f"The primary container for production variant {variant} did not pass the ping health check. "
            f"Please check CloudWatch logs for this endpoint. {worker.failure}"
        )


def _stop(workers: Sequence[Worker]) -> None:
    """Stop workers in parallel, because each may take seconds."""
    if workers:
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(Worker.stop, workers))
