"""A run's report as one HTML page that loads nothing else: no scripts, no fonts, images as data: URIs.

The template escapes everything that comes from S3 or from the pipeline file; charts are drawn here.
Import inside a task only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from retraining.evaluation.document import EvaluatedModel, EvaluationDocument
from retraining.evaluation.gate import weakest_classes
from retraining.formatting import NO_VALUE, duration, money, number, percent
from retraining.html import data_uri, page_of
from retraining.reporting.charts import Epoch, learning_curves, tuning_chart
from retraining.runs.results import (
    ChangeCounts,
    EstimatedJob,
    KindCost,
    ReportedDataset,
    RunCost,
    RunReport,
    Trial,
    TuningResult,
)

_CHART_TITLES = {
    "confusion_matrix.png": "Confusion matrix",
    "recall_by_class.png": "Recall by class",
    "reliability.png": "Reliability",
    "largest_differences.png": "Images on which the models differ most",
    "confident_errors.png": "Wrong predictions of which the challenger is most certain",
}
_CLASSES_SHOWN = 10
_FIGURES: dict[str, tuple[bool, Callable[[EvaluatedModel], float]]] = {
    "Accuracy": (True, lambda model: model["accuracy"]),
    "Top-5 accuracy": (True, lambda model: model["top5_accuracy"]),
    "Macro F1": (True, lambda model: model["macro_f1"]),
    "Calibration error": (True, lambda model: model["expected_calibration_error"]),
    "Log loss": (False, lambda model: model["negative_log_likelihood"]),
}
"""By title: whether it is shown in percent, and where a model has it."""
_STATE_COLOURS = {"success": "good", "failed": "bad", "upstream_failed": "off", "skipped": "off"}
_STATE_WORDS = {
    "success": "\N{CHECK MARK}",
    "failed": "\N{BALLOT X}",
    "skipped": "skipped",
    "upstream_failed": "not run",
}
_VERDICT_COLOURS = {"live": "good", "kept": "warn", "unchanged": "off", "failed": "bad", "unfinished": "warn"}
_RULE_COLOURS = {"ok": "good", "warning": "warn", "blocks": "bad", "ignored": "off", "unknown": "off"}


@dataclass(frozen=True)
class Materials:
    """What the page shows beside the report's record."""

    history: Sequence[Epoch] = ()
    """The epochs of the training job, from its metrics.json."""
    evaluation: EvaluationDocument | None = None
    charts: Mapping[str, bytes] = field(default_factory=dict)
    """The evaluation's PNG files by name."""
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    """Small JPEGs of the verified images by S3 URI."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Titles and addresses of other reports."""


@dataclass(frozen=True)
class _Figure:
    """A row of the comparison; `interval` is None where the difference was not bootstrapped."""

    title: str
    percent: bool
    challenger: float
    champion: float | None
    difference: float | None = None
    interval: list[float] | None = None


@dataclass(frozen=True)
class _RankedTrial:
    """A trial with its number, from 1, and the length of its bar, from 0 to 1."""

    number: int
    trial: Trial
    bar: float


@dataclass(frozen=True)
class _KindOfJob:
    """A row of the costs; either part may be missing."""

    kind: str
    planned: EstimatedJob | None
    spent: KindCost | None


def render(report: RunReport, materials: Materials) -> str:
    """The HTML page of a report."""
    evaluation, tuning = materials.evaluation, report["tuning"]
    values = {
        "record": report,
        "links": materials.links,
        "tuning_chart": _tuning_chart(tuning, report["maximize"]) if tuning else None,
        "learning_curves": _markup(learning_curves(materials.history)),
        "trials": _ranked(tuning["trials"], maximize=report["maximize"]) if tuning else [],
        "changed_classes": _changed_classes(report["dataset"]),
        "comparison": _comparison(evaluation) if evaluation else None,
        "weakest": weakest_classes(evaluation)[:_CLASSES_SHOWN] if evaluation else [],
        "charts": [
            (_CHART_TITLES.get(name, name), data_uri(content, "image/png"))
            for name, content in materials.charts.items()
        ],
        "thumbnails": {uri: data_uri(content, "image/jpeg") for uri, content in materials.thumbnails.items()},
        "costs": _costs(report["cost"]),
        "state_colours": _STATE_COLOURS,
        "state_words": _STATE_WORDS,
        "verdict_colour": _VERDICT_COLOURS[report["outcome"]["verdict"]],
        "rule_colours": _RULE_COLOURS,
    }
    filters: dict[str, Callable[..., str]] = {
        "money": money,
        "duration": duration,
        "percent": percent,
        "number": number,
        "points": points,
        "label": class_label,
    }
    return page_of("report.html.j2", values, filters)


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return NO_VALUE if value is None else f"{100 * value:+.1f}"


def class_label(name: str) -> str:
    """A class folder's name as people read it: `001.Chihuahua` is Chihuahua."""
    prefix, _, rest = name.partition(".")
    return (rest if prefix.isdigit() and rest else name).replace("_", " ")


def _markup(svg: str | None) -> Markup | None:
    """A chart that the template must not escape: `charts` has escaped what is in it."""
    return None if svg is None else Markup(svg)  # noqa: S704


def _tuning_chart(tuning: TuningResult, maximize: bool) -> Markup | None:
    return _markup(tuning_chart(tuning["trials"], tuning["objective"], maximize=maximize))


def _ranked(trials: Sequence[Trial], *, maximize: bool) -> list[_RankedTrial]:
    """The trials, best first; those without an objective come last."""
    values = [trial["objective"] for trial in trials if trial["objective"] is not None]
    best, worst = (max(values), min(values)) if values else (0.0, 0.0)
    if not maximize:
        best, worst = worst, best
    ranked = [
        _RankedTrial(place, trial, _bar(trial["objective"], best, worst))
        for place, trial in enumerate(trials, 1)
    ]
    return sorted(ranked, key=lambda one: one.bar, reverse=True)


def _bar(value: float | None, best: float, worst: float) -> float:
    """Length of a trial's bar: 1 for the best, short but visible for the worst, 0 without an objective."""
    if value is None:
        return 0.0
    return 1.0 if best == worst else 0.15 + 0.85 * (value - worst) / (best - worst)


def _changed_classes(dataset: ReportedDataset | None) -> list[tuple[str, ChangeCounts]]:
    """Classes with changes, the most changed first."""
    changes = dataset["changes"] if dataset else None

    def changed(item: tuple[str, ChangeCounts]) -> int:
        return item[1]["added"] + item[1]["removed"] + item[1]["changed"]

    classes = filter(changed, changes["classes"].items() if changes else ())
    return sorted(classes, key=lambda item: (-changed(item), item[0]))


def _comparison(evaluation: EvaluationDocument) -> list[_Figure]:
    """Challenger and champion by figure, with the difference and its interval where it was bootstrapped."""
    challenger, champion = evaluation["models"]["challenger"], evaluation["models"]["champion"]
    compared = evaluation["comparison"]
    differences = {"Accuracy": compared["accuracy"], "Macro F1": compared["macro_f1"]} if compared else {}
    rows = []
    for title, (in_percent, value) in _FIGURES.items():
        row = _Figure(title, in_percent, value(challenger), value(champion) if champion else None)
        if title in differences:
            gain = differences[title]
            row = replace(row, difference=gain["difference"], interval=gain["interval"])
        rows.append(row)
    return rows


def _costs(cost: RunCost) -> list[_KindOfJob]:
    planned = {job["kind"]: job for job in cost["estimate"]["jobs"]} if cost["estimate"] else {}
    spent = cost["actual"]["by_kind"]
    return [
        _KindOfJob(kind, planned.get(kind), spent.get(kind)) for kind in dict.fromkeys([*planned, *spent])
    ]
