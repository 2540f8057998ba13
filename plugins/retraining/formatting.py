"""Tables for logs of fixed-width characters."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table


def rendered(grid: Table, width: int = 180) -> str:
    """The table as lines of at most `width` characters, without colours."""
    text = io.StringIO()
    Console(file=text, width=width).print(grid)
    return text.getvalue()
