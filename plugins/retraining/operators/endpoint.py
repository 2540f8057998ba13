"""The provider's endpoint operator, made safe to retry: it creates or updates, whichever the endpoint needs.

Import inside a task only: the provider's operators load boto3.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerEndpointOperator
from airflow.sdk import Context

from retraining.aws.clients import Aws
from retraining.aws.responses import contains
from retraining.deployment.alarms import AlarmState, alarm_states, put_alarms
from retraining.deployment.endpoint import Watch, remember_previous, remembered_previous
from retraining.errors import DeploymentError
from retraining.jobs.logs import LogTail
from retraining.operators.jobs import ATTEMPTS, Answer, Follows, Request, describe_or_none
from retraining.planning.deployment import alarms_of, longest_seconds, with_alarms
from retraining.registry.registry import rejected_or_logged
from retraining.runs.naming import attempt_name

_PERIODS_OF_PATIENCE = 2
_POLL_SECONDS = 2.0
# In a FailureReason. Others (capacity, permissions, an error inside SageMaker) say nothing about the model.
_FAULTS_OF_MODEL = ("health check", "alarm")


class IdempotentEndpointOperator(Follows, SageMakerEndpointOperator):
    """Puts a model into service: creates what is missing, updates what runs, and checks what runs in the end.

    Beside `Model`, `EndpointConfig` and `Endpoint`, the request may have
    `Alarms`      PutMetricAlarm requests, sent before the endpoint is touched;
    `Package`     ARN of the model package, which is rejected if its model is at fault for a rollback;
    `Replaces`    the configuration that has to be in service before, None for none, or nothing is done;
    `PatienceSeconds`  how long to wait for alarms that are on already, by default two of their periods;
    `LimitSeconds`     longest time to wait for the endpoint, by default the deployment's own and its start.

    Returns `{name, config, model, status, seconds, created, previous}`. `previous` is the configuration that
    was in service before, also where an earlier try of the task has replaced it; None at a creation.
    """

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        self.preprocess_config()
        started = time.monotonic()
        endpoint = self.config["Endpoint"]["EndpointName"]
        self.set_console_url(f"endpoints/{endpoint}")
        aws = Aws(self.aws_conn_id or Aws.connection)
        deployment = self.config["Endpoint"].get("DeploymentConfig")
        limit = self.config.get("LimitSeconds") or longest_seconds(deployment)
        config_name = self._create_resources()
        put_alarms(aws.cloudwatch, self.config.get("Alarms", []))
        watch = Watch(aws, endpoint, alarms_of(deployment))
        previous = self._create_or_update(watch, config_name, limit)
        description = watch.rest(limit)
        self._check(watch, description, config_name)
        seconds = round(time.monotonic() - started, 1)
        self.log.info("The endpoint %s serves %s after %.1f s", endpoint, config_name, seconds)
        return {
            "name": endpoint,
            "config": config_name,
            "model": config_name,
            "status": "InService",
            "seconds": seconds,
            "created": previous is None,
            "previous": previous,
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

    def _create_or_update(self, watch: Watch, config_name: str, limit: float) -> str | None:
        """Ask for the configuration unless it is in service. Returns the one before it."""
        description = self._without_failed(watch, limit)
        request = {**self.config["Endpoint"], "EndpointConfigName": config_name}
        if description is None:
            remember_previous(watch.aws, config_name, None)
            watch.begin(())
            self.log.info("Creating the endpoint %s with %s", watch.endpoint, config_name)
            self.hook.create_endpoint(request, wait_for_completion=False)
            return None
        running: str = description["EndpointConfigName"]
        if running == config_name:
            return remembered_previous(watch.aws, config_name)
        expected = self.config.get("Replaces", running)
        if running != expected:
            raise DeploymentError(
                f"The endpoint {watch.endpoint} runs {running}, "
                f"{f'not {expected} any more' if expected else 'and was not there before'}: another "
                "deployment came between. Look at what is in service now, and start again if it is still "
                "wrong."
            )
        remember_previous(watch.aws, config_name, running)
        self.log.info("Updating the endpoint %s from %s to %s", watch.endpoint, running, config_name)
        request.pop("Tags", None)
        request = self._without_alarms_on(watch, request)
        watch.begin(alarms_of(request.get("DeploymentConfig")))
        self.hook.update_endpoint(request, wait_for_completion=False)
        return running

    def _without_failed(self, watch: Watch, limit: float) -> Answer | None:
        """The endpoint once it rests; None where there is none, or where it never served and is deleted."""
        description = watch.rest(limit)
        if description is None or description["EndpointStatus"] != "Failed":
            return description
        self.log.info("The endpoint %s failed earlier and is created anew", watch.endpoint)
        self.client.delete_endpoint(EndpointName=watch.endpoint)
        self.hook.get_waiter("endpoint_deleted").wait(EndpointName=watch.endpoint, WaiterConfig={"Delay": 2})
        return None

    def _without_alarms_on(self, watch: Watch, request: Request) -> Request:
        """The UpdateEndpoint request without the alarms that are on and stay on.

        An alarm that is on before anything has changed speaks of the model in service, which the update
        replaces: with it, SageMaker would roll back every update, the remedy included.
        """
        on = self._alarms_on(watch)
        if not on:
            return request
        self.log.warning(
            "On already, with the model in service, so they do not watch this update: %s",
            "; ".join(map(str, on)),
        )
        trusted = [name for name in watch.alarms if name not in {alarm.name for alarm in on}]
        return {**request, "DeploymentConfig": with_alarms(request["DeploymentConfig"], trusted)}

    def _alarms_on(self, watch: Watch) -> list[AlarmState]:
        """The alarms that are on, also after some patience with what an earlier deployment left behind."""
        periods = [alarm["Period"] for alarm in self.config.get("Alarms", [])]
        patience = self.config.get("PatienceSeconds", _PERIODS_OF_PATIENCE * max(periods, default=60))
        deadline = time.monotonic() + patience
        while True:
            on = [alarm for alarm in alarm_states(watch.aws.cloudwatch, watch.alarms) if alarm.on]
            if not on or time.monotonic() > deadline:
                return on
            self.log.info("Waiting for %s", "; ".join(map(str, on)))
            time.sleep(_POLL_SECONDS)

    def _check(self, watch: Watch, description: Answer | None, config_name: str) -> None:
        """Raises DeploymentError unless the configuration is in service; a rollback ends InService, too."""
        status = description["EndpointStatus"] if description else "deleted"
        running = description["EndpointConfigName"] if description else None
        if status == "InService" and running == config_name:
            return
        for line in self._last_lines(watch.endpoint):
            self.log.error("%s", line)
        reason = (description or {}).get("FailureReason", "see the endpoint's log above")
        if running == config_name:
            problem = f"The endpoint {watch.endpoint} is {status} with {config_name}: {reason}"
        else:
            problem = (
                f"The endpoint {watch.endpoint} was rolled back: it is {status} with {running}, not "
                f"{config_name}: {reason}"
            )
        if watch.fired:
            problem += " " + "; ".join(f"Alarm {alarm}" for alarm in watch.fired.values())
        package = self.config.get("Package")
        if package and (watch.fired or any(fault in reason.lower() for fault in _FAULTS_OF_MODEL)):
            rejected_or_logged(watch.aws, package, problem)
        raise DeploymentError(problem)

    def _last_lines(self, endpoint: str, count: int = 50) -> list[str]:
        tail = LogTail(self.hook.logs_hook.get_conn(), f"/aws/sagemaker/Endpoints/{endpoint}", "AllTraffic")
        return list(tail.lines())[-count:]
