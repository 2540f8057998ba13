"""Values as people read them."""

from __future__ import annotations

import pytest
from retraining.formatting import duration, money, number, percent, rendered, signed
from rich.table import Table


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (59.6, "60 s"), (600, "10 min"), (43200, "12.0 h")]
)
def test_durations_are_readable(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (0, "$0.00"), (0.0042, "$0.0042"), (1234.5, "$1,234.50")]
)
def test_amounts_are_readable(value: float | None, text: str) -> None:
    assert money(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "\N{EN DASH}"), (0.03456789, "0.03457"), ("0.10", "0.1"), ("adam", "adam")]
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert number(value) == text


def test_fractions_and_differences_are_readable() -> None:
    assert (percent(0.8), percent(0.8765, 0), percent(None)) == ("80.0%", "88%", "\N{EN DASH}")
    assert (signed(0.0333), signed(-0.25, 2), signed(-0.0001)) == ("+0.033", "\N{MINUS SIGN}0.25", "+0.000")


def test_a_table_fits_the_log_pane() -> None:
    grid = Table("name", "text")
    grid.add_row("n" * 60, "words " * 60)
    assert max(len(line) for line in rendered(grid).splitlines()) == 100
