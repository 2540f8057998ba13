"""AWS answers as JSON: times become ISO 8601 text, which XCom keeps and people read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def as_json(value: Any) -> Any:
    """A deep copy of an AWS answer that `json.dumps` takes, without the HTTP part."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(member) for key, member in value.items() if key != "ResponseMetadata"}
    if isinstance(value, list | tuple):
        return [as_json(member) for member in value]
    return value
