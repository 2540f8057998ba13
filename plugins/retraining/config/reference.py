"""The reference of pipeline files, docs/pipeline.md, made from the model itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retraining.config.params import limits, schema_of
from retraining.config.pipeline import Pipeline

_HEAD = """\
# Pipeline files

Every key of a file in `dags/pipelines/`, made from the code by `make pipeline-schema`. Unknown keys are
errors, which name the closest known one.

"""


def reference() -> str:
    """Every key with its default, its limits and its meaning, as Markdown."""
    lines = ["| key | default | what it is |", "|---|---|---|"]
    for key, field in _fields(Pipeline):
        schema = schema_of(Pipeline, key)
        words = " ".join(
            part for part in (schema.get("description", ""), _values(schema), limits(schema)) if part
        )
        lines.append(f"| `{key}` | {_default(field)} | {_escaped(words.strip())} |")
    return _HEAD + "\n".join(lines) + "\n"


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The keys below a section, with dots, in the order of the code."""
    for name, field in model.model_fields.items():
        inner = _section(field.annotation)
        if inner is None:
            yield f"{prefix}{name}", field
        else:
            yield from _fields(inner, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds; None for a value, and for a section that may be left out."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _values(schema: dict[str, Any]) -> str:
    return f"One of {', '.join(map(str, schema['enum']))}." if "enum" in schema else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return f"`{json.dumps(value)}`"


def _escaped(text: str) -> str:
    """Text that does not end its cell, and is no HTML."""
    return text.replace("|", "&#124;").replace("<", "&lt;")
