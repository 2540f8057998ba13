"""A run's report as one HTML page that needs nothing beside it: no script, no font, no picture elsewhere.

Everything that comes from S3 or from the pipeline file is escaped by the template; charts are drawn here.
Import inside a task only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from retraining.costs.estimate import duration, money
from retraining.evaluation.gate import weakest_classes
from retraining.html import data_uri, page_of
from retraining.reporting.charts import learning_curves, tuning_chart

NOTHING = "\N{EN DASH}"
"""What stands in a cell without a value."""
_CHART_TITLES = {
    "confusion_matrix.png": "Confusion matrix",
    "recall_by_class.png": "Recall by class",
    "reliability.png": "Reliability",
    "largest_differences.png": "Pictures on which the models differ most",
    "confident_errors.png": "Wrong answers of which the challenger is most certain",
}
_CLASSES_SHOWN = 10
_FIGURES = {
    "accuracy": "Accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "macro_f1": "Macro F1",
    "expected_calibration_error": "Calibration error",
    "negative_log_likelihood": "Log loss",
}
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
    """What the page shows beside the record."""

    history: Sequence[Mapping[str, Any]] = ()
    """One entry per epoch of the training job, as its metrics.json has them."""
    evaluation: Mapping[str, Any] | None = None
    """The content of evaluation.json."""
    charts: Mapping[str, bytes] = field(default_factory=dict)
    """The evaluation's PNG files by name."""
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    """Small JPEGs of verified pictures by S3 URI."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Titles and addresses of other reports."""


def render(record: Mapping[str, Any], materials: Materials) -> str:
    """The page of `record`, which is what `retraining.reporting.report.run_report` returns."""
    evaluation = materials.evaluation
    values = {
        "record": record,
        "links": materials.links,
        "tuning_chart": _tuning_chart(record["tuning"], record["maximize"]),
        "learning_curves": _markup(learning_curves(materials.history)),
        "trials": _ranked(record["tuning"], maximize=record["maximize"]),
        "breeds": _changed_classes(record["dataset"]),
        "comparison": _comparison(evaluation) if evaluation else None,
        "worst": weakest_classes(evaluation)[:_CLASSES_SHOWN] if evaluation else [],
        "charts": [
            (_CHART_TITLES.get(name, name), data_uri(content, "image/png"))
            for name, content in materials.charts.items()
        ],
        "thumbnails": {uri: data_uri(content, "image/jpeg") for uri, content in materials.thumbnails.items()},
        "costs": _costs(record["cost"]),
        "state_colours": _STATE_COLOURS,
        "state_words": _STATE_WORDS,
        "verdict_colour": _VERDICT_COLOURS[record["outcome"]["verdict"]],
        "rule_colours": _RULE_COLOURS,
    }
    filters: dict[str, Callable[..., str]] = {
        "money": money,
        "duration": duration,
        "percent": percent,
        "number": number,
        "share": share,
        "label": label,
    }
    return page_of("report.html.j2", values, filters)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NOTHING if value is None else f"{value:.{digits}%}"


def share(value: float | None) -> str:
    """A difference of shares, in points, with its sign."""
    return NOTHING if value is None else f"{100 * value:+.1f}"


def number(value: Any) -> str:
    """A number as short as it can be told from its neighbours; other things as they are."""
    if value is None:
        return NOTHING
    try:
        return f"{float(value):.4g}"
    except (TypeError, ValueError):
        return str(value)


def label(class_name: str) -> str:
    """A class folder's name for people: `001.Chihuahua` is Chihuahua."""
    prefix, _, rest = class_name.partition(".")
    return (rest if prefix.isdigit() and rest else class_name).replace("_", " ")


def _markup(svg: str | None) -> Markup | None:
    """A chart that the template must not escape: `charts` has escaped what is in it."""
    return None if svg is None else Markup(svg)  # noqa: S704


def _tuning_chart(tuning: Mapping[str, Any] | None, maximize: bool) -> Markup | None:
    if not tuning:
        return None
    return _markup(tuning_chart(tuning["trials"], tuning["objective"], maximize=maximize))


def _ranked(tuning: Mapping[str, Any] | None, *, maximize: bool) -> list[dict[str, Any]]:
    """The trials, best first, each with its number and with `part`, the bar's length from 0 to 1."""
    trials = [{**trial, "number": place} for place, trial in enumerate((tuning or {}).get("trials", []), 1)]
    values = [trial["objective"] for trial in trials if trial["objective"] is not None]
    if not values:
        return trials
    low, high = min(values), max(values)
    for trial in trials:
        value = trial["objective"]
        trial["part"] = 0.0 if value is None else _part(value, low, high, maximize=maximize)
    worst = -float("inf") if maximize else float("inf")
    return sorted(trials, key=lambda t: worst if t["objective"] is None else t["objective"], reverse=maximize)


def _part(value: float, low: float, high: float, *, maximize: bool) -> float:
    """A bar's length: 1 for the best of the values, short but visible for the worst."""
    if high == low:
        return 1.0
    goodness = (value - low) / (high - low)
    return 0.15 + 0.85 * (goodness if maximize else 1 - goodness)


def _changed_classes(dataset: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, int]]]:
    """Classes with changed pictures, the most changed first."""
    changes = (dataset or {}).get("changes") or {}
    classes: Mapping[str, Mapping[str, int]] = changes.get("classes", {})
    changed = {name: counts for name, counts in classes.items() if any(counts.values())}
    return sorted(changed.items(), key=lambda item: (-sum(item[1].values()), item[0]))


def _comparison(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per figure: challenger, champion, difference with its interval where it was resampled."""
    models, resampled = evaluation["models"], evaluation["comparison"] or {}
    champion = models["champion"] or {}
    rows = []
    for key, title in _FIGURES.items():
        compared = resampled.get(key) or {}
        rows.append(
            {
                "title": title,
                "percent": key in {"accuracy", "top5_accuracy", "macro_f1", "expected_calibration_error"},
                "challenger": models["challenger"][key],
                "champion": champion.get(key),
                "difference": compared.get("difference"),
                "interval": compared.get("interval"),
            }
        )
    return rows


def _costs(cost: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per kind of job: what it might have cost, what was expected, what it cost."""
    planned = {job["kind"]: job for job in (cost["estimate"] or {}).get("jobs", [])}
    spent = cost["actual"]["by_kind"]
    return [
        {"kind": kind, "planned": planned.get(kind), "spent": spent.get(kind)}
        for kind in dict.fromkeys([*planned, *spent])
    ]
