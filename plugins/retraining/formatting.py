"""Values as people read them: numbers, money, durations, and tables for the task log."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

NO_VALUE = "\N{EN DASH}"
"""Stands in a cell without a value."""

_HOUR = 3600


def rendered(table: Table, width: int = 100) -> str:
    """The table as plain text of at most `width` columns, which is what Airflow's log pane shows."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width, markup=False, emoji=False).print(table)
    return text.getvalue()


def money(value: float | None) -> str:
    """USD in cents, and amounts under 10 cents with four decimals; "?" if unknown."""
    if value is None:
        return "?"
    return f"${value:,.2f}" if value >= 0.1 or value == 0 else f"${value:.4f}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever reads best; "?" if unknown."""
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return NO_VALUE if value is None else f"{value:.{digits}%}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: a minus sign, not a hyphen; what rounds to zero is +0."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def number(value: object) -> str:
    """A number, also one in a string, with four significant digits; anything else as it is."""
    if value is None:
        return NO_VALUE
    try:
        return f"{float(str(value)):.4g}"
    except ValueError:
        return str(value)
