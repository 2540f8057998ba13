"""What the provider's SageMaker operators lack, and ours share: safe attempts and a log to read.

A task that runs again finds the job that an earlier attempt started and follows it, instead of paying for
another; a killed task stops its job; a stopped job is a failure.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerBaseOperator
from airflow.sdk.exceptions import AirflowException
from botocore.exceptions import ClientError

from retraining.aws.clients import CLIENT_CONFIG, CONNECTION, Aws
from retraining.aws.responses import contains, member, or_none
from retraining.errors import JobFailedError
from retraining.jobs.kinds import RUNNING, JobKind
from retraining.jobs.logs import LogTail
from retraining.jobs.polling import job_polls
from retraining.operators.links import ConsoleLink
from retraining.operators.result import R_co, Returns
from retraining.runs.naming import ATTEMPT_LIMIT, attempt_name

if TYPE_CHECKING:
    from airflow.sdk import Context
    from mypy_boto3_sagemaker import SageMakerClient

_ENDED_BADLY = {"Failed", "Stopped", "Stopping", "Deleting", "DeleteFailed"}
# The platform's fault. Any other failure (AlgorithmError, ClientError) is the script's or the request's, and
# the same job would fail again in the same way.
_PLATFORM_FAULTS = ("InternalServerError", "CapacityError")


class SageMakerOperator(Returns[R_co], SageMakerBaseOperator):
    """What our SageMaker operators share: connection, client configuration, console link."""

    operator_extra_links = (ConsoleLink(),)
    console_url: str | None = None

    def __init__(self, *, aws_conn_id: str = CONNECTION, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=aws_conn_id, botocore_config=CLIENT_CONFIG, **kwargs)

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

    A subclass says how a job of its kind is described, created, stopped and shown.
    """

    kind: ClassVar[JobKind]
    console_page: ClassVar[str]
    job_name: str | None = None
    """The job that this task stops when it is killed."""

    def execute(self, context: Context) -> Any:  # noqa: ARG002  an R_co, but the provider promises a dict
        self.config = self.completed(self.config)
        self.preprocess_config()
        name = self._adopt_or_create()
        self.set_console_url(f"{self.console_page}/{name}")
        for _ in job_polls():
            description = self.describe(name)
            self.show(description)
            if description[self.kind.status] not in RUNNING:
                break
        self.show_rest(description)
        self._check_ended_well(description)
        return self.result_of(description)

    def on_kill(self) -> None:
        """Stop the job, which may have ended, or may never have been created."""
        if self.job_name is not None:
            or_none(partial(self.stop, self.job_name))

    def completed(self, planned: Any) -> Any:
        """The planned request, completed by what other tasks found out."""
        return planned

    @abstractmethod
    def describe(self, name: str) -> Mapping[str, Any]:
        """SageMaker's description of the job."""

    @abstractmethod
    def create(self, request: Mapping[str, Any]) -> None:
        """Create a job, and do not wait for it."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop a job."""

    @abstractmethod
    def show(self, description: Mapping[str, Any]) -> None:
        """Log what is new at this poll."""

    def show_rest(self, description: Mapping[str, Any]) -> None:
        """Log what comes after the end."""

    @abstractmethod
    def result_of(self, description: Mapping[str, Any]) -> R_co:
        """The task's result, from the description of a completed job."""

    def _adopt_or_create(self) -> str:
        """Make sure that a job with the request `config` runs or has completed, and return its name.

        Raises JobFailedError when all attempts' names are used up.
        """
        kind, wanted = self.kind, self.config[self.kind.name]
        for attempt in range(1, ATTEMPT_LIMIT + 1):
            self.job_name = attempt_name(
                wanted, attempt, kind.limit
            )  # known to on_kill before the job exists
            description = or_none(partial(self.describe, self.job_name))
            if description is None:
                self._create(self.job_name)
                return self.job_name
            obstacle = self._obstacle(description)
            if obstacle is None:
                self.log.info("Following the %s %s", kind.noun, self.job_name)
                return self.job_name
            self.log.info("The %s %s %s; another attempt follows", kind.noun, self.job_name, obstacle)
        raise JobFailedError(f"The {kind.noun} {wanted} has had {ATTEMPT_LIMIT} attempts; start a new run.")

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
        reason = failure_reason(description)
        error = AirflowException if reason.startswith(_PLATFORM_FAULTS) else JobFailedError
        raise error(f"The {noun} {name} failed: {reason}")


class LoggedJobOperator(JobOperator[R_co]):
    """A job whose own log goes into the task's."""

    log_group: ClassVar[str]
    _tail: LogTail | None = None

    def show(self, description: Mapping[str, Any]) -> None:
        if self._tail is None:
            self._tail = LogTail(self.aws.logs, self.log_group, f"{description[self.kind.name]}/")
        for line in self._tail.lines():
            self.log.info("%s", line)

    def show_rest(self, description: Mapping[str, Any]) -> None:
        """The last lines reach CloudWatch a little after the end."""
        time.sleep(1)
        self.show(description)


def failure_reason(description: Mapping[str, Any]) -> str:
    """Why a job failed: what the platform says and, for a processing job, the script's exit message."""
    texts = (description.get("FailureReason"), description.get("ExitMessage"))
    return " | ".join(text for text in texts if text) or "no reason given"
