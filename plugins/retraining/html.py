"""HTML pages in a single file: rendered from the templates, with images embedded in the page.

Import inside a task only.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"


def page_of(template: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., str]]) -> str:
    """Render a template with values, which are escaped; jinja2.UndefinedError if one is missing."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(values)


def data_uri(content: bytes, media_type: str) -> str:
    """The content as a data: URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
