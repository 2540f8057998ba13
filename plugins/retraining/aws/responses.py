"""AWS answers: as JSON, which XCom keeps and people read; compared; and those that say what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

Answer = TypeVar("Answer")

_MISSING = {"ValidationException", "ResourceNotFound"}


def as_json(value: Any) -> Any:
    """A deep copy of an AWS answer that `json.dumps` takes, with times in ISO 8601, without the HTTP part."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(member) for key, member in value.items() if key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [as_json(member) for member in value]
    return value


def is_missing(error: ClientError) -> bool:
    """Whether SageMaker refused a request because there is nothing of the name in it.

    Most of its operations say so with a ValidationException, a few with ResourceNotFound. Stop and delete
    operations refuse what has ended already with the former, too.
    """
    return error.response["Error"]["Code"] in _MISSING


def or_none(call: Callable[[], Answer]) -> Answer | None:
    """What a request to SageMaker answers, or None where there is nothing of the name in it."""
    from botocore.exceptions import ClientError

    try:
        return call()
    except ClientError as error:
        if is_missing(error):
            return None
        raise


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
