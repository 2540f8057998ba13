"""Filters, order and pages of the List operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from local_sagemaker.context import Request
from local_sagemaker.errors import ValidationError
from local_sagemaker.patterns import number
from local_sagemaker.store import Document

PAGE = 10  # SageMaker's default for MaxResults

_Item = TypeVar("_Item")


def select(
    documents: list[Document],
    request: Request,
    *,
    name: str,
    status: str,
    sort_by: str = "CreationTime",
    sort_order: str = "Descending",
) -> tuple[list[Document], str | None]:
    """The page that a List request asks for, and the NextToken (None on the last page).

    `name` and `status` are the members that hold a document's name and, where the kind has one, its status.
    `sort_by` and `sort_order` apply where the request has none. Raises ValidationError for a NextToken that
    no earlier response gave.
    """
    found = [document for document in documents if _matches(document, request, name, status)]
    member = {"Name": name, "Status": status}.get(request.get("SortBy", sort_by), "CreationTime")
    descending = request.get("SortOrder", sort_order) == "Descending"
    found.sort(key=lambda document: document[member], reverse=descending)
    return page(found, request)


def page(items: Sequence[_Item], request: Request, size: int = PAGE) -> tuple[list[_Item], str | None]:
    """The items from NextToken on, at most MaxResults or `size` of them, and the NextToken if more follow.

    Raises ValidationError for a token that no earlier response gave.
    """
    start, size = _offset(request.get("NextToken")), request.get("MaxResults", size)
    return list(items[start : start + size]), str(start + size) if start + size < len(items) else None


def _matches(document: Document, request: Request, name: str, status: str) -> bool:
    """Whether a document passes the filters that List operations share.

    Both ends of a time range are included: AWS documents CreationTimeAfter of ListModels, ListEndpoints and
    ListEndpointConfigs as "greater than or equal to", and is not precise about the others.
    """
    created = document["CreationTime"]
    modified = document.get("LastModifiedTime", created)
    end = float("inf")
    return (
        request.get("NameContains", "") in document[name]
        and request.get("CreationTimeAfter", 0) <= created <= request.get("CreationTimeBefore", end)
        and request.get("LastModifiedTimeAfter", 0) <= modified <= request.get("LastModifiedTimeBefore", end)
        and ("StatusEquals" not in request or request["StatusEquals"] == document[status])
    )


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    offset = number(token)
    if offset is None:
        raise ValidationError(f"Invalid NextToken {token!r}: pass the one of the previous response.")
    return offset
