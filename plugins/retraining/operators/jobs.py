"""What the provider's SageMaker operators lack, and ours share: safe attempts and a log to read.

A task that runs again finds the job that an earlier attempt started and follows it, instead of paying for
another; a killed task stops its job, deferred or not; a stopped job is a failure.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerBaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError

from retraining.aws.clients import CLIENT_CONFIG, CONNECTION, Aws
from retraining.aws.responses import contains, member, or_none
from retraining.errors import JobFailedError
from retraining.jobs.followers import JobFollower
from retraining.jobs.following import Event
from retraining.jobs.kinds import RUNNING, JobKind
from retraining.operators.deferring import DeferringOperator, defer_by_default
from retraining.operators.links import ConsoleLink
from retraining.operators.result import R_co
from retraining.runs.naming import ATTEMPT_LIMIT, attempt_name

if TYPE_CHECKING:
    from airflow.sdk import Context
    from mypy_boto3_sagemaker import SageMakerClient

_ENDED_BADLY = {"Failed", "Stopped", "Stopping", "Deleting", "DeleteFailed"}
_LATE_STOP = timedelta(minutes=2)
"""A job that ends Stopped so soon after it was adopted was being stopped for the attempt before."""
# The platform's fault. Any other failure (AlgorithmError, ClientError) is the script's or the request's, and
# the same job would fail again in the same way.
_PLATFORM_FAULTS = ("InternalServerError", "CapacityError")


class SageMakerOperator(DeferringOperator[R_co], SageMakerBaseOperator):
    """What our SageMaker operators share: connection, client configuration, deferral, console link."""

    operator_extra_links = (ConsoleLink(),)
    console_url: str | None = None

    def __init__(
        self, *, aws_conn_id: str = CONNECTION, deferrable: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            aws_conn_id=aws_conn_id,
            botocore_config=CLIENT_CONFIG,
            deferrable=defer_by_default() if deferrable is None else deferrable,
            **kwargs,
        )

    @cached_property
    def aws(self) -> Aws:
        """The services, over the operator's connection."""
        return Aws(self.aws_conn_id or CONNECTION)

    @property
    def client(self) -> SageMakerClient:
        """The hook's client, which the provider does not type."""
        return cast("SageMakerClient", self.hook.get_conn())

    def set_console_url(self, page: str) -> None:
        """Remember the console's page, on AWS only."""
        client = self.client
        if client.meta.endpoint_url.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            region = client.meta.region_name
            self.console_url = (
                f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/{page}"
            )


class JobOperator(SageMakerOperator[R_co]):
    """Runs the job of `config`, the API's request, and follows it to its end.

    With `keep_running_on_kill` a task that is killed leaves its job alone; the next attempt adopts it. A job
    that exceeds its own limits is stopped.
    A subclass says how a job of its kind is created and followed.
    """

    kind: ClassVar[JobKind]
    follower: ClassVar[type[JobFollower]]
    console_page: ClassVar[str]
    job_name: str | None = None
    """The job that this task stops when it is killed."""

    def __init__(self, *, keep_running_on_kill: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_running_on_kill = keep_running_on_kill

    def execute(self, context: Context) -> Any:  # an R_co, but the provider promises a dict
        self.restore({})
        return self._start(context)

    def restore(self, saved: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Complete the planned request."""
        self.config = self.completed(self.config)

    def on_kill(self) -> None:
        """Stop the job."""
        if self.job_name is not None and not self.keep_running_on_kill:
            self.kind.stop(self.aws, self.job_name)

    def completed(self, planned: Any) -> Any:
        """The planned request, completed by what other tasks found out."""
        return planned

    @abstractmethod
    def create(self, request: Mapping[str, Any]) -> None:
        """Create a job, and do not wait for it."""

    @abstractmethod
    def result_of(self, description: Mapping[str, Any]) -> R_co:
        """The task's result, from the description of a completed job."""

    def failure(self, description: Mapping[str, Any]) -> str:
        """Why a job failed."""
        return failure_reason(description)

    def finish(self, context: Context, event: Event, name: str, adopted: str | None) -> R_co:
        """Judge the job. `adopted` is when this attempt of the task found it running (ISO 8601)."""
        self.job_name = name
        self.set_console_url(f"{self.console_page}/{name}")
        if event.get("timed_out"):
            return self.timed_out(context)
        description = self.kind.describe(self.aws, name)
        status = description[self.kind.status]
        if status == "Stopped" and adopted is not None and _within(adopted, _LATE_STOP):
            self.log.info("An earlier attempt has stopped the %s %s", self.kind.noun, name)
            return self._start(context)
        self._check_ended_well(description)
        self.trace(*self.kind.lineage(description))
        return self.result_of(description)

    def timed_out(self, context: Context) -> R_co:  # noqa: ARG002
        """Stop what runs beyond its own limits. Raises JobFailedError."""
        noun, limit = self.kind.noun, self.kind.limit(self.config)
        for name in self._names():
            description = or_none(partial(self.kind.describe, self.aws, name))
            if description is not None and description[self.kind.status] in RUNNING:
                self.kind.stop(self.aws, name)
                raise JobFailedError(
                    f"The {noun} {name} was stopped: it had not ended after {limit}, its own limit and the "
                    "time for what is around it."
                )
        raise JobFailedError(f"No {noun} of this task has ended within {limit}, and none is running.")

    def _start(self, context: Context) -> R_co:
        name, adopted = self._adopt_or_create()
        self.set_console_url(f"{self.console_page}/{name}")
        return self.wait(
            context,
            self.follower(self.aws, {"name": name}),
            self.kind.limit(self.config),
            self.finish,
            stops=not self.keep_running_on_kill,
            name=name,
            adopted=datetime.now(UTC).isoformat() if adopted else None,
        )

    def _names(self) -> Iterator[str]:
        """The names of the job's attempts."""
        wanted = self.config[self.kind.name]
        for attempt in range(1, ATTEMPT_LIMIT + 1):
            yield attempt_name(wanted, attempt, self.kind.name_limit)

    def _adopt_or_create(self) -> tuple[str, bool]:
        """Make sure that a job with the request `config` runs or has completed.

        Returns its name, and whether another attempt had created it. Raises JobFailedError when all attempts'
        names are used up.
        """
        for name in self._names():
            self.job_name = name  # known to on_kill before the job exists
            description = or_none(partial(self.kind.describe, self.aws, name))
            if description is None:
                self._create(name)
                return name, False
            obstacle = self._obstacle(description)
            if obstacle is None:
                self.log.info("Following the %s %s", self.kind.noun, name)
                return name, True
            self.log.info("The %s %s %s; another attempt follows", self.kind.noun, name, obstacle)
        wanted = self.config[self.kind.name]
        raise JobFailedError(
            f"The {self.kind.noun} {wanted} has had {ATTEMPT_LIMIT} attempts; start a new run."
        )

    def _obstacle(self, description: Mapping[str, Any]) -> str | None:
        """Why an existing job is not the one that this task wants, or None."""
        if description[self.kind.status] in _ENDED_BADLY:
            return f"is {description[self.kind.status]}"
        pairs = ((member(description, *path), member(self.config, *path)) for path in self.kind.compared)
        return None if all(contains(*pair) for pair in pairs) else "was made from another request"

    def _create(self, name: str) -> None:
        self.log.info("Creating the %s %s", self.kind.noun, name)
        try:
            self.create({**self.config, self.kind.name: name})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUse":  # another attempt has just created it
                raise

    def _check_ended_well(self, description: Mapping[str, Any]) -> None:
        """Raise for a job that did not complete: JobFailedError where another attempt is pointless."""
        noun, status, name = self.kind.noun, description[self.kind.status], description[self.kind.name]
        if status == "Completed":
            return
        if status != "Failed":
            detail = description.get("SecondaryStatus") or description.get("FailureReason") or status
            hint = "; raise its time limit in the pipeline file" if "MaxRuntime" in detail else ""
            raise JobFailedError(
                f"The {noun} {name} was stopped ({detail}){hint}. Clear the task to try again."
            )
        reason = self.failure(description)
        error = AirflowException if reason.startswith(_PLATFORM_FAULTS) else JobFailedError
        raise error(f"The {noun} {name} failed: {reason}")


def failure_reason(description: Mapping[str, Any]) -> str:
    """Why a job failed: what the platform says and, for a processing job, the script's exit message."""
    texts = (description.get("FailureReason"), description.get("ExitMessage"))
    return " | ".join(text for text in texts if text) or "no reason given"


def _within(since: str, duration: timedelta) -> bool:
    return datetime.now(UTC) - datetime.fromisoformat(since) < duration
