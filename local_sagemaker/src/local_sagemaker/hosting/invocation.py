"""InvokeEndpoint: sends a request to an instance and returns its response, with AWS's errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from local_sagemaker.context import ACCOUNT, Context
from local_sagemaker.errors import ModelError, ValidationError
from local_sagemaker.hosting.launch import Launcher, log_group
from local_sagemaker.hosting.router import Lease, NoSuchVariantError, NoWorkerError, Router
from local_sagemaker.hosting.worker import ContainerResponse, WorkerLostError, WorkerTimeoutError
from local_sagemaker.store import Document

INVOCATION_SECONDS = 60.0  # AWS's limit for a container's response
MAX_BODY_BYTES = 25 * 1024 * 1024  # quota of a real-time endpoint's request and response

INFERENCE_ID = "X-Amzn-SageMaker-Inference-Id"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
INVOKED_VARIANT = "x-Amzn-Invoked-Production-Variant"
_TO_CONTAINER = ("Content-Type", "Accept", CUSTOM_ATTRIBUTES, INFERENCE_ID)
_FROM_CONTAINER = ("Content-Type", CUSTOM_ATTRIBUTES)


@dataclass(frozen=True)
class Invocation:
    """A finished invocation, for metrics and data capture.

    `status` is the container's, 0 without a response, when `response` is None. `model_seconds` is the
    container's time, `overhead_seconds` the runtime's. `capture` is the fleet's DataCaptureConfig.
    """

    endpoint: str
    variant: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    response: ContainerResponse | None
    model_seconds: float
    overhead_seconds: float
    capture: Document


Observer = Callable[[Invocation], None]


@dataclass(frozen=True)
class _Request:
    """What all attempts of an invocation share. `started` is in monotonic seconds."""

    endpoint: str
    body: bytes
    headers: Mapping[str, str]
    started: float

    def remaining(self) -> float:
        return self.started + INVOCATION_SECONDS - time.monotonic()


class Invoker:
    """Sends requests to an endpoint's instances.

    If an instance is lost before it responds, the request is sent once more, to another instance or to the
    restarted one: for the platform, inference has no side effects. Timeouts are not retried.
    """

    def __init__(self, context: Context, launcher: Launcher, observers: Sequence[Observer]) -> None:
        self._region = context.settings.region
        self._launcher = launcher
        self._observers = observers

    def invoke(
        self, endpoint: str, router: Router, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The container's response, if its status is 2xx. Raises ModelError or ValidationError."""
        if len(body) > MAX_BODY_BYTES:
            raise ValidationError(
                f"The body has {len(body)} bytes; an endpoint takes at most {MAX_BODY_BYTES}."
            )
        lowered = {name.lower(): value for name, value in headers.items()}
        forwarded = {name: lowered[name.lower()] for name in _TO_CONTAINER if name.lower() in lowered}
        request = _Request(endpoint, body, forwarded, time.monotonic())
        target = lowered.get(TARGET_VARIANT.lower())
        try:
            return self._attempt(request, router, target)
        except NoSuchVariantError as error:
            raise ValidationError(f"Variant {error} was not found for endpoint {endpoint}.") from error
        except NoWorkerError as error:
            self._observe(request, str(error), None, time.monotonic(), capture={})
            raise self._timed_out(endpoint) from error

    def _attempt(
        self, request: _Request, router: Router, target: str | None, *, last: bool = False
    ) -> tuple[int, Mapping[str, str], bytes]:
        with router.lease(target, request.remaining()) as lease:
            try:
                return self._call(request, lease)
            except WorkerLostError as error:
                lease.fleet.nudge()
                if last:
                    self._observe_call(request, lease, None, time.monotonic())
                    raise self._lost(request.endpoint, lease) from error
        return self._attempt(request, router, target, last=True)

    def _call(self, request: _Request, lease: Lease) -> tuple[int, Mapping[str, str], bytes]:
        sent = time.monotonic()
        try:
            response = lease.worker.call(request.body, request.headers, request.remaining())
        except WorkerTimeoutError as error:
            self._observe_call(request, lease, None, sent)
            raise self._timed_out(request.endpoint, lease) from error
        self._observe_call(request, lease, response, sent)
        if not 200 <= response.status < 300:
            raise self._refused(request.endpoint, lease, response)
        headers = {name: response.headers[name] for name in _FROM_CONTAINER if name in response.headers}
        return response.status, {**headers, INVOKED_VARIANT: lease.variant}, response.body

    def _observe_call(
        self, request: _Request, lease: Lease, response: ContainerResponse | None, sent: float
    ) -> None:
        self._observe(request, lease.variant, response, sent, capture=lease.fleet.record.capture)

    def _observe(
        self,
        request: _Request,
        variant: str,
        response: ContainerResponse | None,
        sent: float,
        *,
        capture: Document,
    ) -> None:
        invocation = Invocation(
            endpoint=request.endpoint,
            variant=variant,
            request_headers=request.headers,
            request_body=request.body,
            status=response.status if response else 0,
            response=response,
            model_seconds=time.monotonic() - sent,
            overhead_seconds=sent - request.started,
            capture=capture,
        )
        for observer in self._observers:
            observer(invocation)

    def _refused(self, endpoint: str, lease: Lease, response: ContainerResponse) -> ModelError:
        return self._error(endpoint, lease, response.status, response.body.decode(errors="replace"))

    def _timed_out(self, endpoint: str, lease: Lease | None = None) -> ModelError:
        message = (
            "Your invocation timed out while waiting for a response from container primary. Review the "
            "latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
        )
        return self._error(endpoint, lease, 0, message)

    def _lost(self, endpoint: str, lease: Lease) -> ModelError:
        message = "The model server ended during the request, and again when it was repeated."
        return self._error(endpoint, lease, 502, message)

    def _error(self, endpoint: str, lease: Lease | None, status: int, message: str) -> ModelError:
        """An error with AWS's text; `status` is the container's, 0 where it gave none."""
        side = "client" if 400 <= status < 500 else "server"
        console = f"https://{self._region}.console.aws.amazon.com/cloudwatch/home?region={self._region}"
        text = (
            f'Received {side} error ({status}) from primary with message "{message}". See '
            f"{console}#logEventViewer:group={log_group(endpoint)} in account {ACCOUNT} for more information."
        )
        arn = (
            self._launcher.log_stream_arn(endpoint, lease.variant, lease.worker.instance.id) if lease else ""
        )
        return ModelError(text, status, message, arn)
