"""A client that sends images to the endpoint without a pause, and counts what goes wrong."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004

from demo.aws import Aws

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

WORKERS = 4
PAUSE_SECONDS = 0.25  # of a worker between two requests, so that a run has cores left
WAIT_SECONDS = 0.5  # between two requests to an endpoint that does not exist yet
SHOWN = 3
UNANSWERED = (ConnectionError, HTTPClientError)  # no connection; one that broke, or a time-out
PATIENCE_SECONDS = 120.0  # that a patient client waits for a server which does not even listen


@dataclass
class Tally:
    """Requests, and the reasons of those that failed."""

    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def reasons(self) -> str:
        return "; ".join(f"{reason} ({count} times)" for reason, count in self.failures.most_common(SHOWN))


class Traffic:
    """Requests from several threads, beginning when the endpoint exists. A failed one is not sent again.

    A patient client sends those again that got no response at all, as boto3 does, and counts them once.
    """

    def __init__(self, aws: Aws, endpoint: str, images: Sequence[bytes], *, patient: bool = False) -> None:
        self._patient = patient
        self._aws = aws
        self._endpoint = endpoint
        self._images = images
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._tally = Tally()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WORKERS)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> Tally:
        """What was counted since the last call."""
        with self._lock:
            taken, self._tally = self._tally, Tally()
        return taken

    def _work(self, first: int) -> None:
        once = Config(retries={"total_max_attempts": 1}, read_timeout=60)
        client = self._aws.session.client("sagemaker-runtime", endpoint_url=self._aws.url, config=once)
        self._wait_for_endpoint()
        number = first
        while not self._ended.is_set():
            reason = self._ask(client, self._images[number % len(self._images)])
            with self._lock:
                self._tally.requests += 1
                self._tally.failures.update([reason] if reason else [])
            number += WORKERS
            self._ended.wait(PAUSE_SECONDS)

    def _wait_for_endpoint(self) -> None:
        while not self._ended.wait(WAIT_SECONDS):
            try:
                found = self._aws.sagemaker.describe_endpoint(EndpointName=self._endpoint)
            except (ClientError, BotoCoreError):
                continue
            if found["EndpointStatus"] == "InService":
                return

    def _ask(self, client: SageMakerRuntimeClient, image: bytes) -> str | None:
        """Why a request failed, or None."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._patient and time.monotonic() < deadline:
            with suppress(*UNANSWERED):
                return self._ask_once(client, image)
            if self._ended.wait(WAIT_SECONDS):
                return None
        return self._ask_once(client, image)

    def _ask_once(self, client: SageMakerRuntimeClient, image: bytes) -> str | None:
        """Why a request failed, or None. Raises UNANSWERED for a patient client."""
        try:
            response = client.invoke_endpoint(
                EndpointName=self._endpoint, ContentType="image/jpeg", Body=image
            )
            response["Body"].read()
        except ClientError as error:
            status = error.response.get("OriginalStatusCode") or error.response["ResponseMetadata"].get(
                "HTTPStatusCode"
            )
            return f"HTTP {status}"
        except BotoCoreError as error:
            if self._patient and isinstance(error, UNANSWERED):
                raise
            return type(error).__name__
        return None
