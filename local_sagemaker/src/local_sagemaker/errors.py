"""The errors of the SageMaker API, with the codes that clients match on."""

from __future__ import annotations

import errno
import sqlite3

FREE_SPACE = "Free some space and repeat the request; nothing was changed."


class ApiError(Exception):
    """An error response: AWS's error code, and the HTTP status, which is never 5xx for an invalid request."""

    code = "ValidationException"
    status = 400

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ValidationError(ApiError):
    """An invalid request; for most operations also a resource that does not exist or already exists."""

    code = "ValidationException"


class ResourceInUseError(ApiError):
    """The name is taken, or the resource is in a state that does not allow the operation."""

    code = "ResourceInUse"


class ConflictError(ApiError):
    """The model registry's error for a name that is taken or a group that is not empty."""

    code = "ConflictException"


class ResourceNotFoundError(ApiError):
    """The resource does not exist. Stop* and tag operations use this code, Describe* ValidationException."""

    code = "ResourceNotFound"


class ResourceLimitExceededError(ApiError):
    """A quota would be exceeded, for instance 30 hyperparameters or 750 jobs of a tuning job."""

    code = "ResourceLimitExceeded"


class SerializationError(ApiError):
    """The body is not a JSON object, or a value has a type other than the service model's."""

    code = "SerializationException"


class UnknownOperationError(ApiError):
    """SageMaker has no such operation, or it is not part of this local runtime."""

    code = "UnknownOperationException"


class InsufficientStorageError(ApiError):
    """The disk is full; boto3 does not retry status 507."""

    code = "InsufficientStorage"
    status = 507


class ModelError(ApiError):
    """The model's container responded with an error; the caller gets its status and message."""

    code = "ModelError"
    status = 424

    def __init__(
        self, message: str, original_status: int, original_message: str, log_stream_arn: str = ""
    ) -> None:
        super().__init__(message)
        self.original_status = original_status
        self.original_message = original_message
        self.log_stream_arn = log_stream_arn


def is_disk_full(error: BaseException) -> bool:
    """Whether the operating system or SQLite ran out of space, or of the user's quota."""
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorcode == sqlite3.SQLITE_FULL
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
