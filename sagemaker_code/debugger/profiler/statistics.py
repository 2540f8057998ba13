"""Statistics in the form of AWS's report files."""

from typing import Any

import numpy as np

from debugger.profiler.samples import Array


def percentile(values: Array, rank: float) -> float:
    """The percentile ``rank`` (0 to 100) with NumPy's linear interpolation."""
    return float(np.percentile(values, rank))


def box(values: Array) -> dict[str, float]:
    """Quartiles, p95, and whiskers at 1.5 interquartile ranges clipped to the extremes."""
    p25, p50, p75, p95 = (float(one) for one in np.percentile(values, [25, 50, 75, 95]))
    reach = 1.5 * (p75 - p25)
    return {
        "p25": p25,
        "p50": p50,
        "p75": p75,
        "p95": p95,
        "upper": min(p75 + reach, float(values.max())),
        "lower": max(p25 - reach, float(values.min())),
    }


def usage(values: Array) -> dict[str, float]:
    """max, p99, p95, p50 and min, rounded to two decimals."""
    p99, p95, p50 = (float(one) for one in np.percentile(values, [99, 95, 50]))
    found = {"max": float(values.max()), "p99": p99, "p95": p95, "p50": p50, "min": float(values.min())}
    return {name: round(value, 2) for name, value in found.items()}


def histogram(values: Array, bins: int = 100) -> dict[str, list[Any]]:
    """``probs`` (counts, as AWS names them) and ``binedges`` over the range of the values."""
    counts, edges = np.histogram(values, bins=bins)
    return {"probs": [int(one) for one in counts], "binedges": [float(one) for one in edges]}


def shares(amounts: dict[str, float]) -> dict[str, float]:
    """Each amount in per cent of their sum; empty if the sum is zero."""
    whole = sum(amounts.values())
    return {name: 100.0 * amount / whole for name, amount in amounts.items()} if whole > 0 else {}
