"""The geometry of the page's charts, as SVG shapes that ``templates/macros.html`` draws.

Coordinates are pixels of a viewBox that is WIDTH wide. Colours are the numbers of CSS classes (``c1``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from debugger.profiler.samples import Array

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 30
POINTS = 480
"""Most points of a line, each the mean of several values; the band behind the line shows their extremes."""
DOTS, LARGEST_DOTS = 1500, 50
"""Most dots of a line, and how many of the largest values are always among them."""
BOX_LEFT, BOX_ROW = 170, 34
"""Left edge of a box chart's scale, and the height of a row."""


@dataclass(frozen=True)
class Line:
    """One line of a time chart; ``times`` in epoch seconds."""

    label: str
    times: Array
    values: Array
    colour: int


@dataclass(frozen=True)
class Shape:
    """An SVG element with its attributes; ``title`` is its tooltip."""

    tag: str
    attributes: dict[str, str | int]
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """The shapes of a chart, and its legend as pairs of label and colour."""

    shapes: list[Shape]
    height: int = HEIGHT
    legend: list[tuple[str, int]] = field(default_factory=list)
    width: int = WIDTH


def _shape(tag: str, css: str, *, text: str = "", title: str = "", **attributes: float | str) -> Shape:
    """A shape of CSS class ``css``; numbers get one decimal."""
    found: dict[str, str | int] = {"class": css}
    for name, value in attributes.items():
        found[name] = f"{value:.1f}" if isinstance(value, float) else value
    return Shape(tag, found, text, title)


def time_chart(
    lines: Sequence[Line],
    span: tuple[float, float],
    unit: str,
    top: float | None = None,
    *,
    dots: bool = False,
) -> Chart | None:
    """Lines (or dots) over ``span`` (epoch seconds), from zero to ``top`` or the maximum; None if empty."""
    lines = [one for one in lines if len(one.values)]
    if not lines:
        return None
    highest = top if top is not None else round_up(max(float(one.values.max()) for one in lines))
    scale = _Scale(span, highest)
    draw = scale.dots if dots else scale.line
    shapes = [*scale.frame(unit), *(shape for one in lines for shape in draw(one))]
    return Chart(shapes, legend=[(one.label, one.colour) for one in lines])


class _Scale:
    """Maps times and values to coordinates."""

    def __init__(self, span: tuple[float, float], highest: float) -> None:
        self._start, end = span
        self._length = max(1e-9, end - self._start)
        self._highest = highest or 1.0

    def _x(self, moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (moment - self._start) / self._length

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, value / self._highest)

    def frame(self, unit: str) -> list[Shape]:
        """Horizontal grid lines and the ticks of both axes."""
        step = round_up(self._length / 8)
        elapsed = [index * step for index in range(int(self._length / step) + 1)]
        ticks = [_label(self._x(self._start + one), HEIGHT - 10, clock(one)) for one in elapsed]
        return _grid(self._highest, unit) + ticks

    def line(self, line: Line) -> list[Shape]:
        """Means over time as a line, in front of a band from the smallest to the largest value."""
        bins = np.minimum((line.times - self._start) / self._length * POINTS, POINTS - 1).astype(int)
        upper, lower, points = [], [], []
        for number in np.unique(bins):
            chosen = bins == number
            at = self._x(float(line.times[chosen].mean()))
            values = line.values[chosen]
            upper.append(f"{at:.1f},{self._y(float(values.max())):.1f}")
            lower.append(f"{at:.1f},{self._y(float(values.min())):.1f}")
            points.append(f"{at:.1f},{self._y(float(values.mean())):.1f}")
        return [
            _shape("polygon", f"band c{line.colour}", points=" ".join(upper + lower[::-1])),
            _shape("polyline", f"line c{line.colour}", points=" ".join(points)),
        ]

    def dots(self, line: Line) -> list[Shape]:
        """A sample of the values as dots."""
        chosen = np.unique(np.linspace(0, len(line.times) - 1, min(len(line.times), DOTS)).astype(int))
        chosen = np.union1d(chosen, np.argsort(line.values)[-LARGEST_DOTS:])
        points = zip(line.times[chosen].tolist(), line.values[chosen].tolist(), strict=True)
        return [
            _shape("circle", f"dot c{line.colour}", r=2, cx=self._x(at), cy=self._y(value))
            for at, value in points
        ]


def _label(x: float, y: float, text: str, anchor: str = "middle") -> Shape:
    return _shape("text", f"tick {anchor}", text=text, x=x, y=y)


def _grid(highest: float, unit: str) -> list[Shape]:
    """Horizontal grid lines at quarters of the scale, with their values."""
    shapes = []
    for quarter in range(5):
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * quarter / 4
        shapes.append(_shape("line", "grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        shapes.append(_label(LEFT - 6, y + 4, amount(highest * quarter / 4, unit), "end"))
    return shapes


def histogram_chart(counts: Sequence[int], edges: Sequence[float], unit: str) -> Chart:
    """Columns of ``counts`` between ``edges``, which are one more."""
    highest = round_up(max(1, *counts))
    shapes = _grid(highest, "")
    width = (WIDTH - LEFT - RIGHT) / len(counts)
    for index, count in enumerate(counts):
        tall = (HEIGHT - TOP - BOTTOM) * count / highest
        x, y = LEFT + index * width, HEIGHT - BOTTOM - tall
        shapes.append(_shape("rect", "bar c1", x=x, y=y, width=max(0.5, width - 0.6), height=tall))
    for part in range(6):
        index = round(part * (len(edges) - 1) / 5)
        anchor = "end" if part == 5 else "middle"
        shapes.append(_label(LEFT + index * width, HEIGHT - 10, amount(edges[index], unit), anchor))
    return Chart(shapes)


def box_chart(rows: Sequence[tuple[str, dict[str, float]]]) -> Chart:
    """Box plots over 0 to 100 % of ``statistics.box``: whiskers, quartiles, median, and p95 as a dot."""
    height = BOX_ROW * len(rows) + 26
    across = (WIDTH - BOX_LEFT - RIGHT) / 100
    shapes = []
    for share in range(0, 101, 25):
        at = BOX_LEFT + share * across
        shapes.append(_shape("line", "grid", x1=at, x2=at, y1=4, y2=height - 20))
        shapes.append(_label(at, height - 4, f"{share} %", "end" if share == 100 else "middle"))
    for index, (label, box) in enumerate(rows):
        y = BOX_ROW * index + 20
        mark = {name: BOX_LEFT + min(100.0, max(0.0, value)) * across for name, value in box.items()}
        width = max(1.0, mark["p75"] - mark["p25"])
        shapes += [
            _label(BOX_LEFT - 10, y + 4, label, "end"),
            _shape("line", "line c1", x1=mark["lower"], x2=mark["upper"], y1=y, y2=y),
            _shape("rect", "box c1", x=mark["p25"], y=y - 9, height=18, width=width),
            _shape("line", "median", x1=mark["p50"], x2=mark["p50"], y1=y - 9, y2=y + 9),
            _shape("circle", "dot c3", r=4, cx=mark["p95"], cy=y, title=f"p95 {box['p95']:.1f} %"),
        ]
    return Chart(shapes, height)


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 or 10 times a power of ten at or above ``value``."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9))


def clock(elapsed: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    whole = round(elapsed)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def amount(value: float, unit: str) -> str:
    """A number with its unit; ``B/s`` and ``s`` get a suitable prefix."""
    if unit == "B/s":
        for limit, name in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
            if value >= limit:
                return f"{value / limit:.3g} {name}"
        return f"{value:.3g} B/s"
    if unit == "s" and abs(value) < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.4g} {unit}".strip()
