"""Prices of AWS by region. They stand in `prices.yaml` beside this file, with their sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Self

import yaml

PRICES = Path(__file__).with_name("prices.yaml")
HOUR = 3600  # seconds
MONTH_HOURS = 730  # as in AWS's pricing calculator


@dataclass(frozen=True)
class PriceTable:
    """Prices of one region: USD per hour by instance type, USD per GB and month of a volume."""

    read_on: date
    source: str
    instances: Mapping[str, float]
    storage_gb_month: float
    spot_discount: float

    @classmethod
    def of(cls, region: str, corrections: Mapping[str, float]) -> Self:
        """The prices of a region; `corrections` add to its instance prices or replace them. An unknown
        region has only those.
        """
        content = _price_file()
        known = content["regions"].get(region, {})
        return cls(
            read_on=content["read_on"],
            source=content["source"],
            instances={**known.get("instances", {}), **corrections},
            storage_gb_month=known.get("storage_gb_month", 0.0),
            spot_discount=content["spot"]["discount"],
        )


def volume_usd(gigabytes: float, seconds: float, storage_gb_month: float) -> float:
    """Price of a job's volume."""
    return gigabytes * storage_gb_month * seconds / (MONTH_HOURS * HOUR)


def total(values: Iterable[float | None]) -> float | None:
    """The sum, or None if any value is unknown."""
    known = list(values)
    return None if None in known else float(sum(value for value in known if value is not None))


@cache
def _price_file() -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(PRICES.read_text(encoding="utf-8"))
    return content
