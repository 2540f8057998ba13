"""Filters, order and pages of the List operations."""

from __future__ import annotations

from typing import Any

import pytest
from local_sagemaker.errors import ValidationError
from local_sagemaker.listing import select

DOCUMENTS = [
    {"ModelName": name, "CreationTime": created, "LastModifiedTime": created + 100, "ModelStatus": status}
    for name, created, status in (("a", 1.0, "Ready"), ("b", 2.0, "Failed"), ("c", 3.0, "Ready"))
]


def names(**request: Any) -> list[str]:
    found, _ = select(DOCUMENTS, request, name="ModelName", status="ModelStatus")
    return [document["ModelName"] for document in found]


def test_time_ranges_include_both_ends() -> None:
    assert names(CreationTimeAfter=2.0) == ["c", "b"]
    assert names(CreationTimeBefore=2.0) == ["b", "a"]
    assert names(LastModifiedTimeAfter=103.0) == ["c"]
    assert names(LastModifiedTimeBefore=101.0) == ["a"]
    assert names(CreationTimeAfter=2.0, CreationTimeBefore=2.0) == ["b"]


def test_names_and_statuses_are_filtered() -> None:
    assert names(NameContains="b") == ["b"]
    assert names(StatusEquals="Ready") == ["c", "a"]


def test_the_newest_comes_first_unless_asked_otherwise() -> None:
    assert names() == ["c", "b", "a"]
    assert names(SortBy="Name", SortOrder="Ascending") == ["a", "b", "c"]
    assert names(SortBy="Status", SortOrder="Ascending") == ["b", "a", "c"]


def test_pages_follow_each_other() -> None:
    request = {"MaxResults": 2}
    _, token = select(DOCUMENTS, request, name="ModelName", status="ModelStatus")
    assert token == "2"
    assert names(MaxResults=2, NextToken=token) == ["a"]
    with pytest.raises(ValidationError, match="Invalid NextToken 'x'"):
        names(NextToken="x")
