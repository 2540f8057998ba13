"""Hosting as one service: models, endpoint configurations, endpoints, and InvokeEndpoint for the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from local_sagemaker.hosting.configs import EndpointConfigs
from local_sagemaker.hosting.endpoints import Endpoints
from local_sagemaker.hosting.invocation import Invoker
from local_sagemaker.hosting.launch import Launcher
from local_sagemaker.hosting.models import Models
from local_sagemaker.images import Images
from local_sagemaker.objects import Objects
from local_sagemaker.platform import Operation, Platform


class Hosting:
    """A `Service`, and the gateway's `Inference`."""

    def __init__(self, platform: Platform, objects: Objects) -> None:
        images = Images(platform.settings.images)
        self._launcher = Launcher(platform, objects, images)
        self._models = Models(platform, objects, images)
        self._configs = EndpointConfigs(platform, self._models)
        self._endpoints = Endpoints(
            platform,
            self._models,
            self._configs,
            images=images,
            launcher=self._launcher,
            alarm=lambda _names: None,
        )
        self._invoker = Invoker(platform, self._launcher, observers=())

    def operations(self) -> Mapping[str, Operation]:
        return {
            **self._models.operations(),
            **self._configs.operations(),
            **self._endpoints.operations(),
        }

    def resume(self) -> None:
        self._launcher.republish_logs()
        self._endpoints.resume()

    def close(self) -> None:
        self._endpoints.close()

    def invoke(
        self, endpoint_name: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The container's answer: status, headers, body. Raises ModelError or ValidationError."""
        router = self._endpoints.router(endpoint_name)
        return self._invoker.invoke(endpoint_name, router, body, headers)
