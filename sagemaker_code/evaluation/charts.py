"""Charts of the evaluation: confusion matrices, recall by class, reliability, and sheets of test images."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from classifier.files import write_atomically
from classifier.images import center_crop, decode
from classifier.prediction import label
from classifier.reader import open_image
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.comparison import ClassChange
from evaluation.metrics import Floats, Ints
from evaluation.model_metrics import ModelMetrics
from evaluation.scoring import TestSet

COLOURS = {"challenger": "#1f6fb2", "champion": "#e08a1e"}
GOOD, BAD, MUTED = "#2a8c4a", "#c0392b", "#6b7280"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
}
DPI = 120
MATRIX_CLASSES = 30
"""Most classes in a confusion matrix; if there are more, those with the most errors are shown."""
NUMBERED_CLASSES = 12
"""Most classes for which the cells of a confusion matrix show their numbers."""
RECALL_CLASSES = 40
SHEET_IMAGES = 20
SHEET_COLUMNS = 5
THUMBNAIL = 192


@dataclass(frozen=True)
class SheetImage:
    """One image of a contact sheet."""

    file: Path
    title: str
    lines: tuple[tuple[str, str], ...]
    """Text and colour of each line below the image."""


def draw_all(
    test: TestSet, models: Mapping[str, ModelMetrics], changes: Sequence[ClassChange], folder: Path
) -> list[str]:
    """Write all charts into the folder and return their file names."""
    with rc_context(STYLE):
        charts = {
            "confusion_matrix.png": confusion_matrices(test.classes, models),
            "recall_by_class.png": recall_changes(changes)
            if changes
            else recall(test.classes, models["challenger"]),
            "reliability.png": reliability(models),
        }
        shown = largest_differences(test, models) if changes else confident_errors(test, models["challenger"])
        if shown:
            name = "largest_differences.png" if changes else "confident_errors.png"
            title = (
                "Test images on which the models differ most about the true class"
                if changes
                else "Wrong predictions of which the challenger is most certain"
            )
            charts[name] = contact_sheet(title, shown)
        for name, figure in charts.items():
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=DPI)
            write_atomically(folder / name, content.getvalue())
    return list(charts)


def confusion_matrices(classes: Sequence[str], models: Mapping[str, ModelMetrics]) -> Figure:
    """One matrix per model; each row shows which part of a class's images was predicted as which class."""
    chosen = _most_confused(models)
    side = max(3.0, 1.4 + 0.22 * len(chosen))
    longest = 0.085 * max(len(_short(classes[index])) for index in chosen)
    figure = _figure(longest + (side + 0.3) * len(models) + 2.0, side + longest + 1.1)
    axes = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axis, (role, metrics) in zip(axes, models.items(), strict=True):
        support = metrics.confusion.sum(1, keepdims=True)
        parts = (metrics.confusion / np.maximum(support, 1))[np.ix_(chosen, chosen)]
        image = axis.imshow(parts, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        axis.set_title(f"{role}: accuracy {float(metrics.counts.accuracy):.1%}", color=COLOURS[role])
        names = [_short(classes[index]) for index in chosen]
        axis.set_xticks(range(len(chosen)), names, rotation=90)
        axis.set_yticks(range(len(chosen)), names)
        axis.tick_params(length=0, labelsize=8 if len(chosen) <= 20 else 7)
        axis.set_xlabel("predicted")
        axis.spines[:].set_visible(False)
        if len(chosen) <= NUMBERED_CLASSES:
            _number_cells(axis, metrics.confusion[np.ix_(chosen, chosen)], parts)
    axes[0].set_ylabel("true")
    figure.colorbar(image, ax=list(axes), label="part of the true class's images", shrink=0.7)
    more = len(classes) > len(chosen)
    figure.suptitle(
        f"Confusion matrix: the {len(chosen)} of {len(classes)} classes with the most errors"
        if more
        else "Confusion matrix"
    )
    return figure


def _most_confused(models: Mapping[str, ModelMetrics]) -> list[int]:
    """The classes with the most errors, as label or as prediction, in their original order."""
    errors = sum(_errors(metrics.confusion) for metrics in models.values())
    ranked = np.argsort(-np.asarray(errors), kind="stable")[:MATRIX_CLASSES]
    return sorted(ranked.tolist())


def _errors(confusion: Ints) -> Ints:
    wrong = confusion - np.diag(np.diagonal(confusion))
    errors: Ints = wrong.sum(0) + wrong.sum(1)
    return errors


def _number_cells(axis: Axes, counts: Ints, parts: Floats) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if parts[row, column] > 0.55 else "#1f2937"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)


def recall_changes(changes: Sequence[ClassChange]) -> Figure:
    """Recall of both models by class, largest loss first, and the difference with its interval."""
    with_images = [change for change in changes if change.images]
    ranked = sorted(with_images, key=lambda change: (change.difference, change.name))[:RECALL_CLASSES]
    figure = _figure(10.5, 1.9 + 0.27 * len(ranked))
    values, differences = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.arange(len(ranked))
    for row, change in zip(rows, ranked, strict=True):
        colour = _change_colour(change.difference)
        values.plot([change.champion, change.challenger], [row, row], color=colour, alpha=0.45, lw=2.5)
        differences.plot([change.low, change.high], [row, row], color=colour, lw=1.8, alpha=0.6)
        differences.plot(change.difference, row, "o", color=colour, ms=5)
    for role in ("champion", "challenger"):
        recalls = [getattr(change, role) for change in ranked]
        values.plot(recalls, rows, "o", color=COLOURS[role], ms=6, label=role)
    values.set_yticks(rows, [_class_title(change) for change in ranked])
    values.set(xlim=(-0.03, 1.03), ylim=(len(ranked) - 0.4, -0.6), xlabel="recall")
    differences.axvline(0, color=MUTED, lw=0.8)
    differences.set_xlabel("challenger - champion, with confidence interval")
    for axis in (values, differences):
        axis.grid(axis="x", color="#e5e7eb", lw=0.7)
        axis.set_axisbelow(True)
        axis.tick_params(axis="y", length=0)
    figure.legend(
        *values.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2, fontsize=9
    )
    shown = f": {len(ranked)} of {len(with_images)} classes" if len(ranked) < len(with_images) else ""
    figure.suptitle(f"Recall by class, largest loss first{shown}")
    return figure


def _change_colour(difference: float) -> str:
    if difference == 0:
        return MUTED
    return GOOD if difference > 0 else BAD


def _class_title(change: ClassChange) -> str:
    news = {"both": "", "challenger": ", new", "champion": ", removed"}[change.known_to]
    return f"{_short(change.name)} ({change.images}{news})"


def recall(classes: Sequence[str], metrics: ModelMetrics) -> Figure:
    """Recall by class, lowest first."""
    counts = metrics.counts
    present = [index for index in range(len(classes)) if counts.support[index]]
    ranked = sorted(present, key=lambda index: (counts.recall[index], classes[index]))[:RECALL_CLASSES]
    figure = _figure(8, 1.7 + 0.27 * len(ranked))
    axis = figure.subplots()
    rows = np.arange(len(ranked))
    values = counts.recall[ranked]
    axis.barh(rows, values, color=COLOURS["challenger"], height=0.7)
    for row, value in zip(rows, values, strict=True):
        axis.text(float(value) + 0.01, float(row), f"{value:.0%}", va="center", fontsize=8, color=MUTED)
    axis.set_yticks(rows, [f"{_short(classes[index])} ({int(counts.support[index])})" for index in ranked])
    axis.set(xlim=(0, 1.08), ylim=(len(ranked) - 0.4, -0.6), xlabel="recall")
    axis.tick_params(axis="y", length=0)
    shown = f": {len(ranked)} of {len(present)} classes" if len(ranked) < len(present) else ""
    figure.suptitle(f"Recall by class, lowest first{shown}")
    return figure


def reliability(models: Mapping[str, ModelMetrics]) -> Figure:
    """Accuracy by confidence above, the number of images by confidence below."""
    figure = _figure(1 + 4.2 * len(models), 5.4)
    grid = figure.subplots(2, len(models), squeeze=False, sharex=True, height_ratios=(3, 1), sharey="row")
    for column, (role, metrics) in enumerate(models.items()):
        bins, upper, lower = metrics.calibration, grid[0][column], grid[1][column]
        width = bins.edges[1] - bins.edges[0]
        used = bins.images > 0
        lefts = bins.edges[:-1][used]
        upper.bar(lefts, bins.accuracy[used], width, align="edge", color=COLOURS[role], edgecolor="white")
        upper.hlines(bins.confidence[used], lefts, lefts + width, color=BAD, lw=2)
        upper.plot([0, 1], [0, 1], "--", color=MUTED, lw=1)
        upper.set(xlim=(0, 1), ylim=(0, 1))
        upper.set_title(f"{role}: calibration error {bins.error:.3f}", color=COLOURS[role])
        lower.bar(bins.edges[:-1], bins.images, width, align="edge", color="#9ca3af", edgecolor="white")
        lower.set_xlabel("confidence")
    grid[0][0].set_ylabel("accuracy")
    grid[1][0].set_ylabel("images")
    handles = [
        Line2D([], [], color=BAD, lw=2, label="mean confidence"),
        Line2D([], [], color=MUTED, ls="--", lw=1, label="perfectly calibrated"),
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, ncols=2)
    figure.suptitle("Reliability")
    return figure


def largest_differences(test: TestSet, models: Mapping[str, ModelMetrics]) -> list[SheetImage]:
    """The images to whose class the two models give the most different probabilities."""
    challenger, champion = models["challenger"], models["champion"]
    gaps = np.abs(challenger.of_labels - champion.of_labels)
    ranked = np.argsort(-gaps, kind="stable")[:SHEET_IMAGES].tolist()
    return [_sheet_image(test, models, index) for index in ranked if gaps[index] > 0]


def confident_errors(test: TestSet, challenger: ModelMetrics) -> list[SheetImage]:
    """The wrong predictions with the highest probability."""
    wrong = np.flatnonzero(challenger.predictions != test.labels)
    ranked = wrong[np.argsort(-challenger.confidences[wrong], kind="stable")][:SHEET_IMAGES].tolist()
    return [_sheet_image(test, {"challenger": challenger}, index) for index in ranked]


def _sheet_image(test: TestSet, models: Mapping[str, ModelMetrics], index: int) -> SheetImage:
    true = test.labels[index]
    lines = []
    for role, metrics in models.items():
        predicted = metrics.predictions[index]
        text = f"{role}: {_short(test.classes[predicted], 18)} {metrics.confidences[index]:.0%}"
        lines.append((text, GOOD if predicted == true else BAD))
    return SheetImage(test.files[index], _short(test.classes[true]), tuple(lines))


def contact_sheet(title: str, shown: Sequence[SheetImage]) -> Figure:
    """Images in rows, each with its class above and the models' predictions below."""
    columns = min(SHEET_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    width = max(2.15 * columns, 6.5)
    figure = _figure(width, 0.6 + rows * (2.3 + 0.2 * len(shown[0].lines)))
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for axis, image in zip(grid.flat, shown, strict=False):
        axis.imshow(center_crop(decode(open_image(image.file), THUMBNAIL), THUMBNAIL))
        axis.set_title(image.title, fontsize=9)
        for number, (text, colour) in enumerate(image.lines):
            axis.text(
                0.5,
                -0.04 - 0.09 * number,
                text,
                transform=axis.transAxes,
                ha="center",
                va="top",
                fontsize=7.5,
                color=colour,
            )
    figure.suptitle(title)
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, whose parts do not overlap."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    return figure


def _short(class_name: str, length: int = 26) -> str:
    """The class's label, cut to `length` characters."""
    text = label(class_name)
    return text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"
