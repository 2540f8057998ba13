"""The endpoint that serves the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerEndpointOperator

from retraining.aws.responses import contains, or_none
from retraining.deployment.alarms import AlarmState, alarm_states, put_alarms
from retraining.deployment.endpoint import EndpointWatch, remember_previous, remembered_previous
from retraining.errors import DeploymentError
from retraining.evaluation.approval import approved_or_skip
from retraining.jobs.logs import LogTail
from retraining.jobs.polling import ENDPOINT_SECONDS, endpoint_polls
from retraining.operators.jobs import SageMakerOperator
from retraining.planning.deployment import alarms_of, longest_seconds, with_alarms
from retraining.registry.registry import reject_or_log
from retraining.reporting.outcome import skip_explained
from retraining.runs.naming import ATTEMPT_LIMIT, attempt_name
from retraining.runs.results import ApprovalResult, DeploymentRequest, EndpointResult

if TYPE_CHECKING:
    from airflow.sdk import Context
    from mypy_boto3_cloudwatch.type_defs import PutMetricAlarmInputTypeDef
    from mypy_boto3_sagemaker.type_defs import (
        CreateEndpointInputTypeDef,
        DescribeEndpointOutputTypeDef,
        UpdateEndpointInputTypeDef,
    )

ANY: Final = "*"
"""Replaces whatever is in service."""

_PERIODS_OF_PATIENCE = 2
_LOG_LINES = 50
# In a FailureReason. Others (capacity, permissions, an error inside SageMaker) do not implicate the model.
_MODEL_FAULTS = ("health check", "alarm")


class EndpointOperator(SageMakerOperator[EndpointResult], SageMakerEndpointOperator):
    """Puts a model into service: creates what is missing, updates what runs, and checks what runs in the end.

    `config` has Model, EndpointConfig and Endpoint. Beside it:

    artifact    URI of the model.tar.gz, for a `config` whose model has none
    alarms      PutMetricAlarm requests, sent before the endpoint is touched
    package     ARN of the model package, which is rejected if its model causes a rollback
    replaces    the configuration that has to be in service before, None for none; otherwise nothing is done
    approval    of the model; without it the task is skipped
    patience_seconds  how long to wait for alarms that are on already; default: two of their periods
    limit_seconds     longest time to wait for the endpoint; default: the deployment's own and its start
    """

    custom_operator_name = "SageMakerEndpointOperator"
    template_fields: Sequence[str] = (
        *SageMakerEndpointOperator.template_fields,
        "artifact",
        "alarms",
        "package",
        "replaces",
        "approval",
    )

    def __init__(
        self,
        *,
        config: DeploymentRequest,
        artifact: str | None = None,
        alarms: Sequence[PutMetricAlarmInputTypeDef] = (),
        package: str | None = None,
        replaces: str | None = ANY,
        approval: ApprovalResult | None = None,
        patience_seconds: float | None = None,
        limit_seconds: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config, **kwargs)
        self.artifact = artifact
        self.alarms = alarms
        self.package = package
        self.replaces = replaces
        self.approval = approval
        self.patience_seconds = patience_seconds
        self.limit_seconds = limit_seconds

    def execute(self, context: Context) -> Any:  # an EndpointResult, but the provider promises a dict
        if self.approval is not None:
            with skip_explained(context["ti"]):
                approved_or_skip(self.approval)
        if self.artifact is not None:
            self.config["Model"]["PrimaryContainer"]["ModelDataUrl"] = self.artifact
        self.preprocess_config()
        return self._deploy(self.config["Endpoint"])

    def _deploy(self, request: CreateEndpointInputTypeDef) -> EndpointResult:
        started = time.monotonic()
        endpoint, deployment = request["EndpointName"], request.get("DeploymentConfig")
        self.set_console_url(f"endpoints/{endpoint}")
        limit = self.limit_seconds or longest_seconds(deployment)
        config_name = self._create_resources()
        put_alarms(self.aws.cloudwatch, self.alarms)
        watch = EndpointWatch(self.aws, endpoint, alarms_of(deployment))
        previous = self._create_or_update(
            watch, {**request, "EndpointConfigName": config_name}, self._without_failed(watch, limit)
        )
        self._check(watch, watch.rest(limit), config_name)
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
        """Create model and endpoint configuration, or find an earlier attempt's. Returns their name."""
        for attempt in range(1, ATTEMPT_LIMIT + 1):
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
        raise DeploymentError(f"{ATTEMPT_LIMIT} models of this run exist already; start a new run.")

    def _ensure(
        self,
        noun: str,
        name: str,
        request: Mapping[str, Any],
        describe: Callable[[str], Mapping[str, Any]],
        create: Callable[[dict[str, Any]], object],
    ) -> bool:
        """True if the resource exists as requested; False if the name stands for something else."""
        existing = or_none(partial(describe, name))
        if existing is None:
            self.log.info("Creating the %s %s", noun, name)
            create(dict(request))
            return True
        same = contains(existing, {key: value for key, value in request.items() if key != "Tags"})
        self.log.info("The %s %s exists%s", noun, name, "" if same else ", made from another request")
        return same

    def _create_or_update(
        self,
        watch: EndpointWatch,
        request: CreateEndpointInputTypeDef,
        description: DescribeEndpointOutputTypeDef | None,
    ) -> str | None:
        """Ask for the configuration unless it is in service. Returns the previous one."""
        config_name = request["EndpointConfigName"]
        if description is None:
            remember_previous(watch.aws, config_name, None)
            watch.begin(())
            self.log.info("Creating the endpoint %s with %s", watch.endpoint, config_name)
            self.hook.create_endpoint(cast("dict[str, Any]", request), wait_for_completion=False)
            return None
        running = description["EndpointConfigName"]
        if running == config_name:
            return remembered_previous(watch.aws, config_name)
        if self.replaces not in {ANY, running}:
            expected = f"not {self.replaces} any more" if self.replaces else "and did not exist before"
            raise DeploymentError(
                f"The endpoint {watch.endpoint} runs {running}, {expected}: another deployment has changed "
                "it. See what is in service now, and start again if it is still wrong."
            )
        remember_previous(watch.aws, config_name, running)
        self.log.info("Updating the endpoint %s from %s to %s", watch.endpoint, running, config_name)
        update: UpdateEndpointInputTypeDef = {
            "EndpointName": watch.endpoint,
            "EndpointConfigName": config_name,
        }
        if "DeploymentConfig" in request:
            trusted = self._alarms_to_trust(watch)
            update["DeploymentConfig"] = with_alarms(request["DeploymentConfig"], trusted)
        watch.begin(alarms_of(update.get("DeploymentConfig")))
        self.hook.update_endpoint(cast("dict[str, Any]", update), wait_for_completion=False)
        return running

    def _without_failed(self, watch: EndpointWatch, limit: float) -> DescribeEndpointOutputTypeDef | None:
        """The endpoint once it rests; None where there is none, or where it never served and is deleted."""
        description = watch.rest(limit)
        if description is None or description["EndpointStatus"] != "Failed":
            return description
        self.log.info("The endpoint %s failed earlier and is created anew", watch.endpoint)
        self.client.delete_endpoint(EndpointName=watch.endpoint)
        self.hook.get_waiter("endpoint_deleted").wait(
            EndpointName=watch.endpoint, WaiterConfig={"Delay": int(ENDPOINT_SECONDS)}
        )
        return None

    def _alarms_to_trust(self, watch: EndpointWatch) -> list[str]:
        """The deployment's alarms, without those that are on and stay on.

        An alarm that is on before anything has changed was raised by the current model; attaching it would
        roll back every update, including the fix.
        """
        on = self._alarms_on(watch)
        if on:
            self.log.warning(
                "Raised by the current model, so they do not watch this update: %s", "; ".join(map(str, on))
            )
        return [name for name in watch.alarms if name not in {alarm.name for alarm in on}]

    def _alarms_on(self, watch: EndpointWatch) -> list[AlarmState]:
        """The alarms that are on, also after some patience with what an earlier deployment left behind."""
        patience = self.patience_seconds
        if patience is None:
            patience = _PERIODS_OF_PATIENCE * max((alarm["Period"] for alarm in self.alarms), default=60)
        for passed in endpoint_polls():
            on = [alarm for alarm in alarm_states(watch.aws.cloudwatch, watch.alarms) if alarm.on]
            if not on or passed > patience:
                break
            self.log.info("Waiting for %s", "; ".join(map(str, on)))
        return on

    def _check(
        self, watch: EndpointWatch, description: DescribeEndpointOutputTypeDef | None, config_name: str
    ) -> None:
        """Raises DeploymentError unless the configuration is in service; a rollback ends InService, too."""
        status = description["EndpointStatus"] if description else "deleted"
        running = description["EndpointConfigName"] if description else None
        if status == "InService" and running == config_name:
            return
        for line in self._last_lines(watch.endpoint):
            self.log.error("%s", line)
        reason = "see the endpoint's log above"
        if description:
            reason = description.get("FailureReason", reason)
        if running == config_name:
            problem = f"The endpoint {watch.endpoint} is {status} with {config_name}: {reason}"
        else:
            problem = (
                f"The endpoint {watch.endpoint} was rolled back: it is {status} with {running}, not "
                f"{config_name}: {reason}"
            )
        if watch.fired:
            problem += " " + "; ".join(f"Alarm {alarm}" for alarm in watch.fired.values())
        if self.package and (watch.fired or any(fault in reason.lower() for fault in _MODEL_FAULTS)):
            reject_or_log(watch.aws, self.package, problem)
        raise DeploymentError(problem)

    def _last_lines(self, endpoint: str) -> list[str]:
        tail = LogTail(self.aws.logs, f"/aws/sagemaker/Endpoints/{endpoint}", "AllTraffic")
        return list(tail.lines())[-_LOG_LINES:]
