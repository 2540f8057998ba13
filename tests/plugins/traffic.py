"""A client that sends requests to an endpoint without a break, as users do while it is updated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from tests.local_sagemaker.runtime_process import RuntimeProcess

_PAUSE_SECONDS = 0.02  # leaves the processor to what is under test


@dataclass
class Seen:
    """What the client saw."""

    succeeded: int = 0
    failed: int = 0

    @property
    def requests(self) -> int:
        return self.succeeded + self.failed


@contextmanager
def traffic(runtime: RuntimeProcess, endpoint: str) -> Iterator[Seen]:
    """Send requests for as long as the block runs."""
    client, seen, stop = runtime.client("sagemaker-runtime"), Seen(), threading.Event()

    def send() -> None:
        while not stop.wait(_PAUSE_SECONDS):
            try:
                client.invoke_endpoint(EndpointName=endpoint, ContentType="text/plain", Body=b"?")[
                    "Body"
                ].read()
                seen.succeeded += 1
            except (ClientError, BotoCoreError):
                seen.failed += 1

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
