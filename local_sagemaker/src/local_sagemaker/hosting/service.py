"""Hosting as one service: models, endpoint configurations, endpoints, and InvokeEndpoint for the gateway."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count

from local_sagemaker.context import Context
from local_sagemaker.hosting.alarms import Alarms
from local_sagemaker.hosting.capture import DataCapture
from local_sagemaker.hosting.configs import EndpointConfigs
from local_sagemaker.hosting.endpoints import Endpoints
from local_sagemaker.hosting.invocation import Invoker
from local_sagemaker.hosting.launch import Launcher
from local_sagemaker.hosting.metrics import Publisher, Recorder
from local_sagemaker.hosting.models import Models, Packages
from local_sagemaker.image_environments import Images
from local_sagemaker.lasting import attempt
from local_sagemaker.s3.objects import Objects

REFRESH_SECONDS = 1.0  # between two updates of the alarms
PUBLISH_EVERY = 5  # updates between two publications of metrics and captured requests


class Hosting:
    """All of hosting; also the gateway's `Inference`."""

    def __init__(self, context: Context, objects: Objects, images: Images, packages: Packages) -> None:
        region = context.settings.region
        recorder = Recorder()
        self._alarms = Alarms(recorder, region)
        self._publisher = Publisher(recorder, region)
        self._launcher = Launcher(context, objects, images)
        self.models = Models(context, objects, images, packages)
        self.configs = EndpointConfigs(context, self.models)
        self.endpoints = Endpoints(
            context, self.models, self.configs, images=images, launcher=self._launcher, alarms=self._alarms
        )
        self._capture = DataCapture(objects)
        observers = (recorder.observe, self._capture.observe)
        self._invoker = Invoker(context, self._launcher, observers)
        self._closing = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name="endpoint-metrics", daemon=True)

    def resume(self) -> None:
        self._launcher.republish_logs()
        self.endpoints.resume()
        self._monitor.start()

    def close(self) -> None:
        self._closing.set()
        self.endpoints.close()
        if self._monitor.is_alive():
            self._monitor.join()
        self._publisher.publish()
        self._capture.flush()

    def invoke(
        self, endpoint_name: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The container's status, headers and body. Raises ModelError or ValidationError."""
        router = self.endpoints.router(endpoint_name)
        return self._invoker.invoke(endpoint_name, router, body, headers)

    def _watch(self) -> None:
        """Update the alarms' states, CloudWatch's metrics and the captured data."""
        for round_ in count(1):
            if self._closing.wait(REFRESH_SECONDS):
                return
            attempt(self._alarms.refresh, "Refreshing the alarms")
            if round_ % PUBLISH_EVERY == 0:
                attempt(self._publisher.publish, "Publishing the endpoints' metrics")
                attempt(self._capture.flush, "Writing captured data")
