"""Responses of AWS: as JSON for XCom and people, compared with requests, and the ones that say "missing"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

T = TypeVar("T")

_MISSING = {
    "ValidationException",  # most of SageMaker's operations
    "ResourceNotFound",  # the rest of them
    "ResourceNotFoundException",  # CloudWatch Logs
    "NoSuchEntity",  # IAM
    "NoSuchKey",  # S3, GetObject
    "404",  # S3, HeadObject and HeadBucket, which have no body
    "NotFound",
}
_LATER = {"RequestLimitExceeded", "RequestTimeout", "SlowDown", "TooManyRequestsException"}


def as_json(value: Any) -> Any:
    """A deep copy of a response that `json.dumps` takes: times in ISO 8601, no HTTP metadata."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(member) for key, member in value.items() if key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [as_json(member) for member in value]
    return value


def is_missing(error: ClientError) -> bool:
    """Whether a well-formed request was refused because what it names does not exist.

    The only place that decides this. SageMaker's stop operations refuse a job that has ended with the same
    code, so for them "missing" includes "ended". A missing bucket is an error: somebody named the wrong one.
    """
    return error.response["Error"]["Code"] in _MISSING


def is_unanswered(error: BaseException) -> bool:
    """Whether a call failed so that it may succeed later: no connection, a lost response, 5xx, throttling."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = error.response["Error"]["Code"]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= HTTPStatus.INTERNAL_SERVER_ERROR or "Throttl" in code or code in _LATER
    unanswered = exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.IncompleteReadError
    return isinstance(error, unanswered)


def or_none(call: Callable[[], T]) -> T | None:
    """The response of `call`, or None where what it names does not exist."""
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as error:
        if is_missing(error):
            return None
        raise


def member(document: Any, *path: str) -> Any:
    """What a document holds under a path of keys, or None."""
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def contains(actual: Any, wanted: Any) -> bool:
    """Whether `actual` says all that `wanted` says. The service adds defaults and may reorder lists."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            contains(actual.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(wanted)
            and all(any(contains(a, w) for a in actual) for w in wanted)
        )
    return bool(actual == wanted)


def primary_container(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The container of a DescribeModel response that requests reach; empty where it names none."""
    container: Mapping[str, Any] = model.get("PrimaryContainer") or next(
        iter(model.get("Containers", [])), {}
    )
    return container


def archive_of(container: Mapping[str, Any]) -> str | None:
    """URI of a container's model.tar.gz, which either of two members holds; None without one."""
    archive: str | None = container.get("ModelDataUrl") or member(
        container, "ModelDataSource", "S3DataSource", "S3Uri"
    )
    return archive
