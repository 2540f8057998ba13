"""Errors that a person has to fix end the task at once, because a retry would meet the same input."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException, AirflowFailException


class NoAnswerError(AirflowException):
    """Something could not be found out, so nothing was decided or changed; a retry asks again."""


class UserError(AirflowFailException):
    """Wrong input. The text names what is wrong and how to put it right."""


class SettingsError(UserError):
    """Airflow's connection to AWS lacks something."""


class ParametersError(UserError):
    """The values of the trigger form do not fit together, or not the pipeline file."""


class DatasetError(UserError):
    """The dataset in S3 cannot be trained on."""


class PlanError(UserError):
    """A request cannot be built: role, source code, weights or search space."""


class JobFailedError(UserError):
    """A job ended Failed or Stopped for a reason that running it again would not change."""


class RuleFindingError(UserError):
    """A Debugger rule whose policy is `fail` found something in the training."""


class CandidateError(UserError):
    """The current model cannot be compared with, or the comparison's results cannot be read."""


class DeploymentError(UserError):
    """The endpoint does not run what was asked for."""


class VerificationError(UserError):
    """The endpoint does not respond, or not as the model did in the evaluation."""


class UnverifiedError(UserError):
    """The endpoint could not be checked, which says nothing about its model: nothing was changed."""


class RunFailedError(UserError):
    """The run failed, which its report has written down."""


class RetireError(UserError):
    """What no run needs any more could not be deleted."""


class RollbackError(UserError):
    """There is nothing to go back to."""
