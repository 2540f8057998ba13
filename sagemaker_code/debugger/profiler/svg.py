"""Charts as inline SVG: no script, no font, nothing to load. Colours come from the page's CSS classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from debugger.profiler.samples import Array

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
POINTS = 480
"""A line is drawn through this many means at most; the band behind it shows the extremes they hide."""


@dataclass(frozen=True)
class Line:
    """One line of a time chart; ``colour`` is the number of a CSS class ``c<number>``."""

    label: str
    times: Array
    values: Array
    colour: int


def time_chart(
    lines: Sequence[Line],
    span: tuple[float, float],
    unit: str,
    top: float | None = None,
    *,
    dots: bool = False,
) -> str:
    """Lines (or dots) over the minutes of ``span`` (epoch seconds), from zero to ``top`` or the maximum."""
    lines = [one for one in lines if len(one.values)]
    if not lines:
        return '<p class="none">No samples.</p>'
    highest = top if top is not None else nice(max(float(one.values.max()) for one in lines))
    scale = _Scale(span, highest)
    body = [scale.frame(unit), *((_dots if dots else _line)(one, scale) for one in lines)]
    legend = "".join(f'<span class="key k{one.colour}"></span>{escape(one.label)} ' for one in lines)
    return f'<div class="legend">{legend}</div>{_svg(body)}'


class _Scale:
    def __init__(self, span: tuple[float, float], highest: float) -> None:
        self.start, self.end = span
        self.length = max(1e-9, self.end - self.start)
        self.highest = highest or 1.0

    def x(self, moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (moment - self.start) / self.length

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / self.highest)

    def frame(self, unit: str) -> str:
        parts = [_rules(self.highest, unit)]
        step = nice(self.length / 8)
        for index in range(int(self.length / step) + 1):
            at = self.x(self.start + index * step)
            parts.append(_label(at, HEIGHT - 10, clock(index * step)))
        return "".join(parts)


def _label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _rules(highest: float, unit: str) -> str:
    """Horizontal grid lines at quarters of the scale with their values."""
    parts = []
    for quarter in range(5):
        value = highest * quarter / 4
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * quarter / 4
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_label(LEFT - 6, y + 4, amount(value, unit), "end"))
    return "".join(parts)


def _line(line: Line, scale: _Scale) -> str:
    bins = np.minimum((line.times - scale.start) / scale.length * POINTS, POINTS - 1).astype(int)
    upper, lower, points = [], [], []
    for number in np.unique(bins):
        chosen = bins == number
        at = scale.x(float(line.times[chosen].mean()))
        values = line.values[chosen]
        upper.append(f"{at:.1f},{scale.y(float(values.max())):.1f}")
        lower.append(f"{at:.1f},{scale.y(float(values.min())):.1f}")
        points.append(f"{at:.1f},{scale.y(float(values.mean())):.1f}")
    band = f'<polygon class="band c{line.colour}" points="{" ".join(upper + lower[::-1])}"/>'
    return f'{band}<polyline class="line c{line.colour}" points="{" ".join(points)}"/>'


def _dots(line: Line, scale: _Scale) -> str:
    chosen = np.unique(np.linspace(0, len(line.times) - 1, min(len(line.times), 1500)).astype(int))
    chosen = np.union1d(chosen, np.argsort(line.values)[-50:])
    return "".join(
        f'<circle class="dot c{line.colour}" r="2" cx="{scale.x(float(line.times[index])):.1f}" '
        f'cy="{scale.y(float(line.values[index])):.1f}"/>'
        for index in chosen
    )


def histogram_chart(counts: Sequence[int], edges: Sequence[float], unit: str) -> str:
    """Columns of ``counts`` between ``edges``."""
    highest = max(1, *counts)
    body = [_rules(nice(highest), "")]
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    for index, count in enumerate(counts):
        tall = (HEIGHT - TOP - BOTTOM) * count / nice(highest)
        body.append(
            f'<rect class="bar c1" x="{LEFT + index * width:.1f}" y="{HEIGHT - BOTTOM - tall:.1f}" '
            f'width="{max(0.5, width - 0.6):.1f}" height="{tall:.1f}"/>'
        )
    for part in range(6):
        index = round(part * (len(edges) - 1) / 5)
        at = LEFT + index * width
        body.append(_label(at, HEIGHT - 10, amount(edges[index], unit), "end" if part == 5 else "middle"))
    return _svg(body)


def bar_list(rows: Sequence[tuple[str, float, str]], colour: int = 1) -> str:
    """Horizontal bars: label, length in per cent, and what to write behind it."""
    longest = max((length for _, length, _ in rows), default=1.0) or 1.0
    items = "".join(
        f'<div class="row"><span class="what" title="{escape(label)}">{escape(label)}</span>'
        f'<span class="track"><span class="fill k{colour}" '
        f'style="width:{max(0.5, 100 * length / longest):.1f}%"></span></span>'
        f'<span class="much">{escape(text)}</span></div>'
        for label, length, text in rows
    )
    return f'<div class="bars">{items}</div>'


def box_chart(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Box plots over 0 to 100 %: whiskers, quartiles, median, and p95 as a mark."""
    height = 34 * len(rows) + 26
    across = (WIDTH - 170 - RIGHT) / 100
    body = []
    for share in range(0, 101, 25):
        at = 170 + share * across
        body.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - 20}"/>')
        body.append(_label(at, height - 4, f"{share} %", "end" if share == 100 else "middle"))
    for index, (label, box) in enumerate(rows):
        y = 34 * index + 20
        mark = {name: 170 + min(100.0, max(0.0, value)) * across for name, value in box.items()}
        body.append(_label(160, y + 4, label, "end"))
        body.append(
            f'<line class="line c1" x1="{mark["lower"]:.1f}" x2="{mark["upper"]:.1f}" y1="{y}" y2="{y}"/>'
        )
        body.append(
            f'<rect class="box c1" x="{mark["p25"]:.1f}" y="{y - 9}" height="18" '
            f'width="{max(1.0, mark["p75"] - mark["p25"]):.1f}"/>'
        )
        body.append(
            f'<line class="median" x1="{mark["p50"]:.1f}" x2="{mark["p50"]:.1f}" y1="{y - 9}" y2="{y + 9}"/>'
        )
        body.append(
            f'<circle class="dot c3" r="4" cx="{mark["p95"]:.1f}" cy="{y}">'
            f"<title>p95 {box['p95']:.1f} %</title></circle>"
        )
    return _svg(body, height)


def _svg(body: Sequence[str], height: int = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(body)}</svg>'


def nice(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten above ``value``."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def clock(elapsed: float) -> str:
    """Seconds since the start as ``m:ss`` or ``h:mm:ss``."""
    whole = round(elapsed)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def amount(value: float, unit: str) -> str:
    """A number with its unit; bytes a second and seconds get the prefix that fits."""
    if unit == "B/s":
        for limit, name in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
            if value >= limit:
                return f"{value / limit:.3g} {name}"
        return f"{value:.3g} B/s"
    if unit == "s" and abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.4g} {unit}".strip()
