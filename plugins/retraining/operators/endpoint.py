"""The endpoint that serves the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerEndpointOperator
from botocore.exceptions import ClientError

from retraining.aws.responses import contains, member, or_none
from retraining.deployment.alarms import put_alarms
from retraining.deployment.blame import MODEL, blame
from retraining.deployment.endpoint import (
    AlarmsFollower,
    EndpointFollower,
    describe_endpoint,
    remember_previous,
    remembered_previous,
    still_changing,
)
from retraining.errors import DeploymentError
from retraining.evaluation.approval import approved_or_skip
from retraining.jobs.following import Event
from retraining.jobs.logs import endpoint_lines
from retraining.jobs.polling import ENDPOINT_SECONDS
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
        CreateModelInputTypeDef,
        DescribeEndpointOutputTypeDef,
        UpdateEndpointInputTypeDef,
    )

ANY: Final = "*"
"""Replaces whatever is in service."""

_PERIODS_OF_PATIENCE = 2
_LOG_LINES = 50
# In a FailureReason. Others (capacity, permissions, an error inside SageMaker) say nothing about the model.
_HEALTH, _ALARM = "health check", "alarm"


class EndpointOperator(SageMakerOperator[EndpointResult], SageMakerEndpointOperator):
    """Puts a model into service: creates what is missing, updates what runs, and checks what runs in the end.

    `config` has Model, EndpointConfig and Endpoint. Beside it:

    artifact    URI of the model.tar.gz, for a `config` whose model has none
    alarms      PutMetricAlarm requests, sent before the endpoint is touched
    package     ARN of the model package, which is rejected if its model is at fault for a rollback
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
        self.restore({})
        return self._begin(context, datetime.now(UTC).isoformat())

    def restore(self, saved: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Complete the planned request."""
        if self.artifact is not None:
            self.config["Model"]["PrimaryContainer"]["ModelDataUrl"] = self.artifact
        self.set_console_url(f"endpoints/{self._endpoint}")

    @property
    def _request(self) -> CreateEndpointInputTypeDef:
        request: CreateEndpointInputTypeDef = self.config["Endpoint"]
        return request

    @property
    def _endpoint(self) -> str:
        return self._request["EndpointName"]

    @property
    def _limit(self) -> float:
        return self.limit_seconds or longest_seconds(self._request.get("DeploymentConfig"))

    def timed_out(self, context: Context) -> EndpointResult:  # noqa: ARG002
        """Leave it to SageMaker. Raises DeploymentError."""
        description = describe_endpoint(self.aws, self._endpoint)
        if description is None:
            raise DeploymentError(f"The endpoint {self._endpoint} does not exist.")
        raise still_changing(description, self._limit)

    def _begin(self, context: Context, started: str) -> EndpointResult:
        self._create_resources()
        put_alarms(self.aws.cloudwatch, self.alarms)
        watched = alarms_of(self._request.get("DeploymentConfig"))  # an earlier attempt may be updating
        return self._at_rest(context, watched, self.update, started=started)

    def _at_rest(
        self, context: Context, alarms: Sequence[str], then: Callable[..., EndpointResult], **state: Any
    ) -> EndpointResult:
        """Wait for the endpoint to come to rest, with an eye on alarms."""
        follower = EndpointFollower(self.aws, {"name": self._endpoint, "alarms": list(alarms)})
        return self.wait(context, follower, timedelta(seconds=self._limit), then, **state)

    def update(self, context: Context, event: Event, started: str) -> EndpointResult:
        """Create or update the endpoint, which is at rest."""
        if event.get("timed_out"):
            return self.timed_out(context)
        config_name = self._create_resources()
        request: CreateEndpointInputTypeDef = {**self._request, "EndpointConfigName": config_name}
        description = self._without_failed()
        if description is None:
            remember_previous(self.aws, config_name, None)
            self.log.info("Creating the endpoint %s with %s", self._endpoint, config_name)
            self._sent(
                partial(
                    self.hook.create_endpoint, cast("dict[str, Any]", request), wait_for_completion=False
                ),
                config_name,
            )
            return self._at_rest(
                context,
                (),
                self.finish,
                started=started,
                config_name=config_name,
                previous=None,
                created=True,
            )
        running = description["EndpointConfigName"]
        if running == config_name:
            previous = remembered_previous(self.aws, config_name)
            created = previous is None
            return self.finish(
                context, event, started=started, config_name=config_name, previous=previous, created=created
            )
        if self.replaces not in {ANY, running}:
            expected = f"not {self.replaces} any more" if self.replaces else "and did not exist before"
            raise DeploymentError(
                f"The endpoint {self._endpoint} runs {running}, {expected}: another deployment has changed "
                "it. See what is in service now, and start again if it is still wrong."
            )
        if "DeploymentConfig" not in request:
            return self.shift(context, {"outcome": {"on": {}}}, started=started, running=running)
        until = datetime.now(UTC) + self._patience()
        alarms = AlarmsFollower(
            self.aws, {"alarms": alarms_of(request["DeploymentConfig"]), "until": until.isoformat()}
        )
        limit = self._patience() + timedelta(minutes=1)
        return self.wait(context, alarms, limit, self.shift, started=started, running=running)

    def shift(self, context: Context, event: Event, started: str, running: str) -> EndpointResult:
        """Start the update from the configuration `running`.

        An alarm that is on before anything has changed was raised by the current model; attaching it would
        roll back every update, including the fix.
        """
        config_name = self._create_resources()
        on = event.get("outcome", {}).get("on", {})
        if on:
            self.log.warning(
                "Raised by the current model, so they do not watch this update: %s", "; ".join(on.values())
            )
        description = describe_endpoint(self.aws, self._endpoint)
        if description is None or description["EndpointConfigName"] != running:
            return self.update(context, event, started=started)  # it has changed while alarms were waited for
        remember_previous(self.aws, config_name, running)
        self.log.info("Updating the endpoint %s from %s to %s", self._endpoint, running, config_name)
        update: UpdateEndpointInputTypeDef = {
            "EndpointName": self._endpoint,
            "EndpointConfigName": config_name,
        }
        if guard := self._request.get("DeploymentConfig"):
            trusted = [name for name in alarms_of(guard) if name not in on]
            update["DeploymentConfig"] = with_alarms(guard, trusted)
        self._sent(
            partial(self.hook.update_endpoint, cast("dict[str, Any]", update), wait_for_completion=False),
            config_name,
        )
        return self._at_rest(
            context,
            alarms_of(update.get("DeploymentConfig")),
            self.finish,
            started=started,
            config_name=config_name,
            previous=running,
            created=False,
        )

    def finish(
        self,
        context: Context,
        event: Event,
        *,
        started: str,
        config_name: str,
        previous: str | None,
        created: bool,
    ) -> EndpointResult:
        """Check what is in service in the end."""
        if event.get("timed_out"):
            return self.timed_out(context)
        fired = event.get("outcome", {}).get("fired", [])
        description = self._check(config_name, fired, datetime.fromisoformat(started))
        seconds = round((datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds(), 1)
        self.log.info("The endpoint %s serves %s after %.1f s", self._endpoint, config_name, seconds)
        self.trace([self.package or self.artifact], [description["EndpointArn"]])
        return {
            "name": self._endpoint,
            "config": config_name,
            "model": config_name,
            "status": "InService",
            "seconds": seconds,
            "created": created,
            "previous": previous,
        }

    def _sent(self, send: Callable[[], object], config_name: str) -> None:
        """Send a request that creates or updates the endpoint.

        A refusal is no error where the endpoint has the configuration or moves to it: then the answer to an
        earlier attempt was lost.
        """
        try:
            send()
        except ClientError:
            found = describe_endpoint(self.aws, self._endpoint)
            pending = member(found, "PendingDeploymentSummary", "EndpointConfigName") if found else None
            if found is None or config_name not in {found["EndpointConfigName"], pending}:
                raise
            self.log.info("The endpoint %s has taken the request already", self._endpoint)

    def _create_resources(self) -> str:
        """Create model and endpoint configuration, or find an earlier attempt's. Returns their name."""
        for attempt in range(1, ATTEMPT_LIMIT + 1):
            name = attempt_name(self.config["Model"]["ModelName"], attempt)
            model = _named(self.config["Model"], name)
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

    def _without_failed(self) -> DescribeEndpointOutputTypeDef | None:
        """The endpoint; None where there is none, or where it never served and is deleted."""
        description = describe_endpoint(self.aws, self._endpoint)
        if description is None or description["EndpointStatus"] != "Failed":
            return description
        self.log.info("The endpoint %s failed earlier and is created anew", self._endpoint)
        self.client.delete_endpoint(EndpointName=self._endpoint)
        self.hook.get_waiter("endpoint_deleted").wait(
            EndpointName=self._endpoint, WaiterConfig={"Delay": int(ENDPOINT_SECONDS)}
        )
        return None

    def _patience(self) -> timedelta:
        """How long an alarm that an earlier deployment left behind may take to go off."""
        seconds = self.patience_seconds
        if seconds is None:
            seconds = _PERIODS_OF_PATIENCE * max((alarm["Period"] for alarm in self.alarms), default=60)
        return timedelta(seconds=seconds)

    def _check(
        self, config_name: str, fired: Sequence[str], started: datetime
    ) -> DescribeEndpointOutputTypeDef:
        """The endpoint. Raises DeploymentError unless the configuration is in service.

        A rollback ends InService, too. The model is rejected where SageMaker's reason names its health, or
        where an alarm was on and it did worse than the old model on the same minutes.
        """
        description, endpoint = describe_endpoint(self.aws, self._endpoint), self._endpoint
        status = description["EndpointStatus"] if description else "deleted"
        running = description["EndpointConfigName"] if description else None
        if description is not None and status == "InService" and running == config_name:
            return description
        for line in self._last_lines(endpoint):
            self.log.error("%s", line)
        given = description.get("FailureReason") if description else None
        reason = given or "see the endpoint's log above"
        if running == config_name:
            problem = f"The endpoint {endpoint} is {status} with {config_name}: {reason}"
        else:
            problem = (
                f"The endpoint {endpoint} was rolled back: it is {status} with {running}, not "
                f"{config_name}: {reason}"
            )
        if fired:
            problem += " " + "; ".join(f"Alarm {alarm}" for alarm in fired)
        at_fault: bool | None = _HEALTH in (given or "").lower()
        if not at_fault and (_ALARM in given.lower() if given else fired):
            at_fault, figures = self._blame(config_name, " ".join([reason, *fired]), started)
            problem = f"{problem.rstrip('.')}. {figures}"
        if self.package and at_fault:
            reject_or_log(self.aws, self.package, problem)
        raise DeploymentError(problem)

    def _blame(self, config_name: str, said: str, started: datetime) -> tuple[bool | None, str]:
        """Whether the model is at fault for the alarms named in `said`, and the figures in a sentence."""
        named = [alarm for alarm in self.alarms if alarm["AlarmName"] in said]
        found = blame(self.aws, self._endpoint, config_name, named or self.alarms, started)
        if found.at_fault:
            return True, found.sentence
        return found.at_fault, (
            f"{found.sentence} So the model is not rejected: see which requests failed, and clear the task "
            "`deploy` to try it again."
        )

    def _last_lines(self, endpoint: str) -> list[str]:
        since = datetime.now(UTC) - timedelta(seconds=self._limit)
        return list(endpoint_lines(self.aws.logs, endpoint, since))[-_LOG_LINES:]


def _named(model: CreateModelInputTypeDef, name: str) -> dict[str, Any]:
    """The model under this name, which its container knows, too."""
    container = model["PrimaryContainer"]
    environment = {**container.get("Environment", {}), MODEL: name}
    return {
        **model,
        "ModelName": name,
        "PrimaryContainer": {**container, "Environment": environment},
    }
