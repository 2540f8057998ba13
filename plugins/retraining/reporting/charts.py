"""The report's charts, as SVG to embed in an HTML page.

Colours are the page's CSS variables and text remains text, so charts follow light and dark themes.
Import inside a task only: matplotlib takes a second.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, TypedDict

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from retraining.runs.results import Trial

# Placeholder colours for matplotlib, each replaced by a variable of the page's style sheet.
INK, MUTED, LINE, ACCENT, SECOND, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    BAD: "var(--bad)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}
_EXTRAS = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*"|(<svg[^>]*?) height="[^"]*"')
_IDENTIFIER = re.compile(r'(\bid="|href="#|url\(#)')
_FONT = re.compile(r"font-family: [^;\"]*;? ?")  # removed: the page's font applies


class Epoch(TypedDict):
    """One epoch of a training job, as the training script's metrics.json describes it."""

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float


def tuning_chart(trials: Sequence[Trial], objective: str, *, maximize: bool) -> str | None:
    """The objective by trial, with the best so far; None if no trial has one."""
    measured = [
        (number, trial["objective"])
        for number, trial in enumerate(trials, 1)
        if trial["objective"] is not None
    ]
    if not measured:
        return None
    numbers, values = zip(*measured, strict=True)
    best = max if maximize else min
    so_far = [best(values[: place + 1]) for place in range(len(values))]
    winner = values.index(best(values))
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 2.7), layout="constrained")
        axis = figure.subplots()
        axis.step(numbers, so_far, where="post", color=SECOND, linewidth=1.6, label="best so far")
        axis.plot(numbers, values, "o", color=ACCENT, markersize=6, label="trial")
        axis.plot(numbers[winner], values[winner], "o", color=SECOND, markersize=11, fillstyle="none")
        axis.set_xlabel("trial")
        axis.set_ylabel(objective)
        axis.set_xlim(0.5, len(trials) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)
        return _svg(figure, "tuning", f"{objective} of {len(trials)} trials, the best {values[winner]:.4f}")


def learning_curves(history: Sequence[Epoch]) -> str | None:
    """Loss and accuracy by epoch, on training and validation images; None without epochs."""
    if not history:
        return None
    epochs = [row["epoch"] for row in history]
    kept = max(history, key=lambda row: row["valid_accuracy"])
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        losses = [row["train_loss"] for row in history], [row["valid_loss"] for row in history]
        _curves(left, "Loss", epochs, *losses)
        accuracies = [row["train_accuracy"] for row in history], [row["valid_accuracy"] for row in history]
        _curves(right, "Accuracy", epochs, *accuracies)
        for axis, value in ((left, kept["valid_loss"]), (right, kept["valid_accuracy"])):
            axis.plot(kept["epoch"], value, "o", color=SECOND, markersize=11, fillstyle="none")
        right.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        left.legend()
        return _svg(
            figure,
            "learning",
            f"Loss and accuracy over {len(history)} epochs; epoch {kept['epoch']:.0f} is kept, with a "
            f"validation accuracy of {kept['valid_accuracy']:.1%}",
        )


def _curves(
    axis: Axes, title: str, epochs: Sequence[int], training: Sequence[float], validation: Sequence[float]
) -> None:
    axis.plot(epochs, training, "o-", color=ACCENT, linewidth=1.8, markersize=4, label="training")
    axis.plot(epochs, validation, "o-", color=SECOND, linewidth=1.8, markersize=4, label="validation")
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as scalable SVG, with unique identifiers and the page's colours."""
    figure.patch.set_alpha(0)
    for axis in figure.axes:
        axis.patch.set_alpha(0)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = _EXTRAS.sub("", buffer.getvalue())
    for _ in ("width", "height"):
        text = _SIZE.sub(lambda found: found[1] or found[2], text, count=1)
    text = _IDENTIFIER.sub(rf"\1{name}-", text)
    text = _FONT.sub("", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
