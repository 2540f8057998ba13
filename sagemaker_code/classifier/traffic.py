"""What a model's requests were like, as lines in its instance's log.

In a blue/green deployment CloudWatch adds up the metrics of both fleets. These lines tell them apart, so that
a new model is not blamed for what the old one does as well on the same minutes.
"""

import json
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from classifier.requests import RequestError

MARK = "traffic: "
"""Begins the JSON in a line. `plugins/retraining/deployment/blame.py` reads it."""
MODEL = "RETRAINING_MODEL"
"""Environment variable with the name of SageMaker's model."""
_INTERVAL_SECONDS = 10.0


class Traffic:
    """Counts requests, and logs a line for every interval that had some. Safe in several threads.

    A line has the model's name, the time (ISO 8601, UTC), the requests, those that failed, and their 99th
    percentile in milliseconds.
    """

    def __init__(self, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        """Start the thread that logs."""
        self._interval = interval_seconds
        self._lock = threading.Lock()
        self._milliseconds: list[float] = []
        self._failed = 0
        threading.Thread(target=self._log, name="traffic", daemon=True).start()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around one request: any error but a RequestError is the model's failure."""
        started, failed = time.perf_counter(), 1
        try:
            yield
            failed = 0
        except RequestError:
            failed = 0
            raise
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            with self._lock:
                self._milliseconds.append(milliseconds)
                self._failed += failed

    def line(self) -> str | None:
        """The line about the requests since the last one; None without requests."""
        with self._lock:
            times, failed = sorted(self._milliseconds), self._failed
            self._milliseconds, self._failed = [], 0
        if not times:
            return None
        document = {
            "model": os.environ.get(MODEL, ""),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "requests": len(times),
            "failed": failed,
            "p99_ms": round(times[math.ceil(0.99 * len(times)) - 1], 1),
        }
        return MARK + json.dumps(document)

    def _log(self) -> None:
        while True:
            time.sleep(self._interval)
            if line := self.line():
                print(line, flush=True)
