"""Whether the challenger may go live: conditions as checks with their numbers, the decision as a sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from retraining.aws.clients import Aws
from retraining.aws.s3 import read_json
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Gate
from retraining.errors import CandidateError
from retraining.formatting import rendered
from retraining.planning.evaluation import DOCUMENT

log = logging.getLogger(__name__)

Document = Mapping[str, Any]
Check = dict[str, Any]

_FORMAT_VERSION = 1  # of evaluation.json
_EXACT = 1e-9  # differences of shares are exact but for rounding
_WORST = 5
_NAMED = 3


def gate(pipeline: Pipeline, evaluation: Document, debugger: Document, aws: Aws) -> dict[str, Any]:
    """Decide over the run's model, and show every check in the log.

    Returns what `decide` returns, with `evaluation`, the URI of evaluation.json, and `charts`, those of the
    pictures beside it. Raises CandidateError where the evaluation left no document that this version reads.
    """
    uri = f"{evaluation['output']}/{DOCUMENT}"
    document = read_json(aws.s3, uri)
    if document is None or document.get("format_version") != _FORMAT_VERSION:
        raise CandidateError(
            f"{uri} is {'missing' if document is None else 'of another format'}. Clear the task `evaluate` "
            "to evaluate the models again."
        )
    decision = decide(pipeline.gate, document, debugger)
    for line in table(decision["checks"]).splitlines():
        log.info("%s", line)
    log.info("%s", decision["sentence"])
    charts = [f"{evaluation['output']}/{name}" for name in document["charts"]]
    return {**decision, "evaluation": uri, "charts": charts}


def decide(settings: Gate, document: Document, debugger: Document) -> dict[str, Any]:
    """Judge the content of an evaluation.json and the Debugger's result.

    Returns `{approved, sentence, champion: bool, checks: [{name, passed, value, threshold, text}], figures:
    {challenger, champion, improvement, worst_breeds}}`; `champion` and `improvement` of the figures are None
    without a champion.
    """
    champion = document["models"]["champion"] is not None
    if champion:
        checks = [_improvement(settings, document), _regression(settings, document), _kept_classes(document)]
    else:
        checks = [_first_accuracy(settings, document)]
    checks.append(_rules(debugger))
    return {
        "approved": all(check["passed"] for check in checks),
        "sentence": _sentence(checks),
        "champion": champion,
        "checks": checks,
        "figures": _figures(document),
    }


def table(checks: list[Check]) -> str:
    """The checks as a table for a log of fixed-width characters."""
    grid = Table("check", "passed", "value", "asked for", "in words", show_lines=True)
    for check in checks:
        values = (_short(check[name]) for name in ("value", "threshold"))
        grid.add_row(check["name"], "yes" if check["passed"] else "NO", *values, check["text"])
    return rendered(grid)


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: a minus sign, not a hyphen; what rounds to zero is +0."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _check(name: str, *, passed: bool, value: Any, threshold: Any, text: str) -> Check:
    return {"name": name, "passed": passed, "value": value, "threshold": threshold, "text": text}


def _improvement(settings: Gate, document: Document) -> Check:
    """The lower bound of the gain must exceed what is asked for: an equal model brings nothing, and stays out
    where nothing less than an improvement is asked for.
    """
    gain, wanted = _gain(document), settings.min_improvement
    text = (
        f"accuracy {gain['challenger']:.3f} against the champion's {gain['champion']:.3f} "
        f"({signed(gain['difference'])}; at least {signed(gain['lower_bound'])} with "
        f"{gain['confidence']:.4g} % confidence, more than {signed(wanted)} was asked for)"
    )
    return _check(
        "improvement",
        passed=gain["lower_bound"] > wanted + _EXACT,
        value=gain["lower_bound"],
        threshold=wanted,
        text=text,
    )


def _first_accuracy(settings: Gate, document: Document) -> Check:
    accuracy = document["models"]["challenger"]["accuracy"]
    return _check(
        "accuracy",
        passed=accuracy >= settings.min_accuracy - _EXACT,
        value=accuracy,
        threshold=settings.min_accuracy,
        text=f"accuracy {accuracy:.3f} without a champion ({settings.min_accuracy:.3f} was asked for)",
    )


def _regression(settings: Gate, document: Document) -> Check:
    """No class that both models know may lose more recall than allowed; of one without test pictures nothing
    is known.
    """
    allowed = settings.max_breed_regression
    rows = _worst_first(document)
    lost = [row for row in rows if row["difference"] < -allowed - _EXACT]
    worst = rows[0]["difference"] if rows else None
    if lost:
        named = "; ".join(_loss(row) for row in lost[:_NAMED])
        more = f"; and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        text = f"{named}{more}: more than the {allowed:.2f} that a class may lose"
    elif worst is None or worst >= 0:
        text = f"none of {len(rows)} classes loses recall"
    else:
        text = f"the greatest loss: {_loss(rows[0])}, where a class may lose {allowed:.2f}"
    return _check("class_regression", passed=not lost, value=worst, threshold=-allowed, text=text)


def _kept_classes(document: Document) -> Check:
    """What the champion knows the challenger must know, unless the data set has dropped it: a class that is
    dropped has no test pictures any more.
    """
    without_pictures = set(document["classes"]["without_pictures"])
    missing = document["classes"]["only_champion"]
    unlearned = [name for name in missing if name not in without_pictures]
    dropped = [name for name in missing if name in without_pictures]
    if unlearned:
        text = f"the challenger does not know {_names(unlearned)}, which the test pictures show"
    elif dropped:
        text = f"the champion's classes are known but for {_names(dropped)}, which the data set dropped"
    else:
        text = "the challenger knows every class of the champion"
    return _check("known_classes", passed=not unlearned, value=len(unlearned), threshold=0, text=text)


def _rules(debugger: Document) -> Check:
    blocking = list(debugger["blocking"])
    text = "no Debugger rule with the policy fail found anything"
    if blocking:
        text = f"Debugger rules with the policy fail found something: {', '.join(blocking)}"
    return _check("debugger_rules", passed=not blocking, value=len(blocking), threshold=0, text=text)


def _sentence(checks: list[Check]) -> str:
    """What decided: the checks that failed, always with the accuracy."""
    accuracy, *others = checks
    failed = [check["text"] for check in others if not check["passed"]]
    if accuracy["passed"] and failed:
        return f"The challenger stays out: {'; '.join(failed)}. It has {accuracy['text']}."
    said = "; ".join([accuracy["text"], *failed])
    return f"The challenger {'goes live' if accuracy['passed'] else 'stays out'}: {said}."


def _figures(document: Document) -> dict[str, Any]:
    models = document["models"]
    champion = models["champion"]
    return {
        "challenger": _model(models["challenger"]),
        "champion": _model(champion) if champion else None,
        "improvement": _gain(document) if champion else None,
        "worst_breeds": weakest_classes(document)[:_WORST],
        "test": dict(document["test"]),
    }


def _model(model: Document) -> dict[str, Any]:
    latency = model["latency"] or {}
    return {
        **{name: model[name] for name in ("arch", "image_size", "classes")},
        **{name: model[name] for name in ("accuracy", "top5_accuracy", "macro_f1")},
        "calibration_error": model["expected_calibration_error"],
        "latency_ms": latency.get("median_ms"),
        "parameters": model["size"]["parameters"],
    }


def _gain(document: Document) -> dict[str, Any]:
    """The comparison of accuracies; `confidence` in percent."""
    comparison = document["comparison"]
    return {**comparison["accuracy"], "confidence": 100 * comparison["bootstrap"]["confidence"]}


def weakest_classes(document: Document) -> list[dict[str, Any]]:
    """The classes that lose most recall against the champion first, or without one those of lowest recall.

    Each is `{class, support, challenger, champion, difference}`, the last two None without a champion.
    """
    if document["models"]["champion"] is None:
        return _least_known(document["models"]["challenger"])
    return _worst_first(document)


def _worst_first(document: Document) -> list[dict[str, Any]]:
    """The classes that both models know and that the test pictures show, greatest loss of recall first."""
    rows = [
        {name: row[name] for name in ("class", "support", "challenger", "champion", "difference")}
        for row in document["comparison"]["recall"]
        if row["known_to"] == "both" and row["difference"] is not None
    ]
    return sorted(rows, key=lambda row: (row["difference"], row["class"]))


def _least_known(challenger: Document) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "class": row["class"],
            "support": row["support"],
            "challenger": row["recall"],
            "champion": None,
            "difference": None,
        }
        for row in challenger["per_class"]
        if row["recall"] is not None
    ]
    return sorted(rows, key=lambda row: (row["challenger"], row["class"]))


def _loss(row: Document) -> str:
    """A class's recall before and after, with the pictures behind it."""
    right = [round(row[role] * row["support"]) for role in ("champion", "challenger")]
    return (
        f"{row['class']} falls from recall {row['champion']:.2f} to {row['challenger']:.2f} "
        f"({signed(row['difference'], 2)}; {right[0]} and then {right[1]} of {row['support']} pictures)"
    )


def _names(classes: list[str]) -> str:
    shown = ", ".join(classes[:_NAMED])
    return f"{shown} and {len(classes) - _NAMED} more" if len(classes) > _NAMED else shown


def _short(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
