"""The provider's endpoint operator, made safe to retry: it creates or updates, whichever the endpoint needs.

Import inside a task only: the provider's operators load boto3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerEndpointOperator
from airflow.sdk import Context

from retraining.errors import DeploymentError
from retraining.joblogs import LogTail
from retraining.jobs import ATTEMPTS, Answer, Follows, Request, contains, describe_or_none
from retraining.names import attempt_name

_MOVING = {"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"}


class IdempotentEndpointOperator(Follows, SageMakerEndpointOperator):
    """Puts a model into service: creates what is missing, updates what runs, and checks what runs in the end.

    Returns `{name, config, model, status, seconds, created}`.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        self.preprocess_config()
        started = time.monotonic()
        endpoint = self.config["Endpoint"]["EndpointName"]
        self.set_console_url(f"endpoints/{endpoint}")
        config_name = self._create_resources()
        created = self._create_or_update(endpoint, config_name, started)
        description = self._settled(endpoint, started)
        self._check(description, config_name)
        seconds = round(time.monotonic() - started, 1)
        self.log.info("The endpoint %s serves %s after %.1f s", endpoint, config_name, seconds)
        return {
            "name": endpoint,
            "config": config_name,
            "model": config_name,
            "status": description["EndpointStatus"],
            "seconds": seconds,
            "created": created,
        }

    def _create_resources(self) -> str:
        """Create model and endpoint configuration, or find those of an earlier try. Returns their name."""
        for attempt in range(1, ATTEMPTS + 1):
            name = attempt_name(self.config["Model"]["ModelName"], attempt)
            model = {**self.config["Model"], "ModelName": name}
            variants = [{**v, "ModelName": name} for v in self.config["EndpointConfig"]["ProductionVariants"]]
            config = {
                **self.config["EndpointConfig"],
                "EndpointConfigName": name,
                "ProductionVariants": variants,
            }
            if not self._ensure("model", name, model, self.hook.describe_model, self.hook.create_model):
                continue
            if self._ensure(
                "endpoint configuration",
                name,
                config,
                self.hook.describe_endpoint_config,
                self.hook.create_endpoint_config,
            ):
                return name
        raise DeploymentError(f"{ATTEMPTS} models of this run exist already; start a new run.")

    def _ensure(
        self,
        noun: str,
        name: str,
        request: Request,
        describe: Callable[[str], Answer],
        create: Callable[[Request], Any],
    ) -> bool:
        """True if the resource exists as requested; False if the name stands for something else."""
        existing = describe_or_none(describe, name)
        if existing is None:
            self.log.info("Creating the %s %s", noun, name)
            create(request)
            return True
        same = contains(existing, {key: value for key, value in request.items() if key != "Tags"})
        self.log.info("The %s %s exists%s", noun, name, "" if same else ", made from another request")
        return same

    def _create_or_update(self, endpoint: str, config_name: str, started: float) -> bool:
        """Ask for the configuration unless it is in service or on its way.

        True if the endpoint was created.
        """
        if describe_or_none(self.hook.describe_endpoint, endpoint):
            description: Answer | None = self._settled(endpoint, started)
        else:
            description = None
        if description and description["EndpointStatus"] == "Failed":
            self.log.info("The endpoint %s failed earlier and is created anew", endpoint)
            self.client.delete_endpoint(EndpointName=endpoint)
            self.hook.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig={"Delay": 2})
            description = None
        request = {**self.config["Endpoint"], "EndpointConfigName": config_name}
        if description is None:
            self.log.info("Creating the endpoint %s with %s", endpoint, config_name)
            self.hook.create_endpoint(request, wait_for_completion=False)
            return True
        if description["EndpointConfigName"] != config_name:
            self.log.info("Updating the endpoint %s to %s", endpoint, config_name)
            request.pop("Tags", None)
            self.hook.update_endpoint(request, wait_for_completion=False)
        return False

    def _settled(self, endpoint: str, started: float) -> Answer:
        """Wait until the endpoint is neither created nor updated any more."""
        shown = None
        while True:
            description: Answer = self.hook.describe_endpoint(endpoint)
            status = description["EndpointStatus"]
            if status != shown:
                self.log.info("The endpoint %s is %s", endpoint, status)
                shown = status
            if status not in _MOVING:
                return description
            self.wait(started)

    def _check(self, description: Answer, config_name: str) -> None:
        """Raises DeploymentError unless the configuration is in service; a rollback ends InService, too."""
        endpoint, status = description["EndpointName"], description["EndpointStatus"]
        running = description.get("EndpointConfigName")
        if status == "InService" and running == config_name:
            return
        for line in self._last_lines(endpoint):
            self.log.error("%s", line)
        reason = description.get("FailureReason", "see the endpoint's log above")
        if running == config_name:
            raise DeploymentError(f"The endpoint {endpoint} is {status} with {config_name}: {reason}")
        raise DeploymentError(
            f"The endpoint {endpoint} was rolled back: it is {status} with {running}, not {config_name}: "
            f"{reason}"
        )

    def _last_lines(self, endpoint: str, count: int = 50) -> list[str]:
        tail = LogTail(self.hook.logs_hook.get_conn(), f"/aws/sagemaker/Endpoints/{endpoint}", "AllTraffic")
        return list(tail.lines())[-count:]
