"""Containers as DescribeModel and DescribeModelPackage name them: where a model's archive is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Container = Mapping[str, Any]


def primary_container(model: Mapping[str, Any]) -> Container:
    """The container that requests reach, of a DescribeModel answer; empty where it names none."""
    container: Container = model.get("PrimaryContainer") or next(iter(model.get("Containers", [])), {})
    return container


def archive_of(container: Container) -> str | None:
    """URI of the model.tar.gz, which stands in either of two members; None for a container without one."""
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    archive: str | None = container.get("ModelDataUrl") or source.get("S3Uri")
    return archive
