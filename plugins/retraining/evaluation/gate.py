"""Whether the challenger may go live: every condition is a check with numbers, the decision a sentence."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.table import Table

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Gate
from retraining.errors import CandidateError
from retraining.evaluation.document import (
    Comparison,
    EvaluatedModel,
    EvaluationDocument,
    RecallDifference,
    read_evaluation,
)
from retraining.formatting import rendered, signed
from retraining.planning.evaluation import DOCUMENT
from retraining.runs.results import (
    ClassRecall,
    DebuggerResult,
    Decision,
    EvaluationResult,
    GateCheck,
    GateFigures,
    GateResult,
    Improvement,
    ModelFigures,
)

log = logging.getLogger(__name__)

_EXACT = 1e-9  # tolerance for rounding, when two shares are compared
_WORST = 5  # weakest classes in the result
_NAMED = 3  # classes named in a sentence


def gate(pipeline: Pipeline, evaluation: EvaluationResult, debugger: DebuggerResult, aws: Aws) -> GateResult:
    """Decide about the run's model, and log every check.

    Raises CandidateError if the evaluation left no document, or one of another format.
    """
    uri = f"{evaluation['output']}/{DOCUMENT}"
    document = read_evaluation(aws.s3, evaluation["output"])
    if document is None:
        raise CandidateError(
            f"{uri} is missing or of another format. Clear the task `evaluate` to evaluate the models again."
        )
    decision = decide(pipeline.gate, document, debugger)
    for line in table(decision["checks"]).splitlines():
        log.info("%s", line)
    log.info("%s", decision["sentence"])
    charts = [f"{evaluation['output']}/{name}" for name in document["charts"]]
    return {**decision, "evaluation": uri, "charts": charts}


def decide(settings: Gate, document: EvaluationDocument, debugger: DebuggerResult) -> Decision:
    """Judge an evaluation and the result of the Debugger rules."""
    comparison = document["comparison"]
    if comparison is None:
        checks = [_first_accuracy(settings, document)]
    else:
        checks = [
            _improvement(settings, document, comparison),
            _regression(settings, comparison),
            _kept_classes(document),
        ]
    checks.append(_rules(debugger))
    approved = all(check["passed"] for check in checks)
    ask = _ask(settings, document) if approved else None
    return {
        "approved": approved,
        "ask": ask,
        "sentence": _sentence(checks, ask),
        "champion": comparison is not None,
        "checks": checks,
        "figures": _figures(document),
    }


def table(checks: Sequence[GateCheck]) -> str:
    """The checks as a table for the task's log."""
    grid = Table("check", "passed", "value", "threshold", "in words", show_lines=True)
    for check in checks:
        values = (_short(check["value"]), _short(check["threshold"]))
        grid.add_row(check["name"], "yes" if check["passed"] else "NO", *values, check["text"])
    return rendered(grid)


def _improvement(settings: Gate, document: EvaluationDocument, comparison: Comparison) -> GateCheck:
    """The lower bound of the improvement must exceed `min_improvement`, so at 0 an equal model stays out.

    Where the test images show no class that both models know, there is nothing to compare, and the challenger
    is judged as a first model.
    """
    common = comparison["accuracy_on_common_classes"]
    if not common["images"]:
        alone = _first_accuracy(settings, document)
        text = alone["text"].replace("without a champion", "on classes of which the champion knows none")
        return {**alone, "text": text}
    gain, wanted = _gain(comparison), settings.min_improvement
    text = (
        f"accuracy {gain['challenger']:.3f} against the champion's {gain['champion']:.3f} "
        f"({signed(gain['difference'])}; at least {signed(gain['lower_bound'])} with "
        f"{gain['confidence']:.4g} % confidence, more than {signed(wanted)} is required)"
    )
    if others := document["test"]["images"] - common["images"]:
        text += (
            f"; the champion cannot know {others} of the {document['test']['images']} test images "
            f"({_names(document['classes']['only_challenger'])}), and on the others it is "
            f"{common['challenger']:.3f} against {common['champion']:.3f}"
        )
    return {
        "name": "improvement",
        "passed": gain["lower_bound"] > wanted + _EXACT,
        "value": gain["lower_bound"],
        "threshold": wanted,
        "text": text,
    }


def _first_accuracy(settings: Gate, document: EvaluationDocument) -> GateCheck:
    accuracy, wanted = document["models"]["challenger"]["accuracy"], settings.min_accuracy
    return {
        "name": "accuracy",
        "passed": accuracy >= wanted - _EXACT,
        "value": accuracy,
        "threshold": wanted,
        "text": f"accuracy {accuracy:.3f} without a champion ({wanted:.3f} is required)",
    }


def _regression(settings: Gate, comparison: Comparison) -> GateCheck:
    """No class that both models know may lose more recall than allowed; classes without test images pass."""
    allowed = settings.max_class_regression
    changes = _recall_changes(comparison)
    lost = [change for change in changes if change[0] < -allowed - _EXACT]
    worst = changes[0][0] if changes else None
    if lost:
        named = "; ".join(_loss(*change) for change in lost[:_NAMED])
        more = f"; and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        text = f"{named}{more}: more than the {allowed:.2f} that a class may lose"
    elif worst is None or worst >= 0:
        text = f"none of {len(changes)} classes loses recall"
    else:
        text = f"the greatest loss: {_loss(*changes[0])}, where a class may lose {allowed:.2f}"
    return {
        "name": "class_regression",
        "passed": not lost,
        "value": worst,
        "threshold": -allowed,
        "text": text,
    }


def _kept_classes(document: EvaluationDocument) -> GateCheck:
    """The challenger must know every class of the champion that the dataset still has.

    A class without test images counts as dropped from the dataset.
    """
    without_images = set(document["classes"]["without_images"])
    missing = document["classes"]["only_champion"]
    unlearned = [name for name in missing if name not in without_images]
    dropped = [name for name in missing if name in without_images]
    if unlearned:
        text = f"the challenger does not know {_names(unlearned)}, which the test images show"
    elif dropped:
        text = f"the champion's classes are known except {_names(dropped)}, which the dataset dropped"
    else:
        text = "the challenger knows every class of the champion"
    return _none_allowed("known_classes", len(unlearned), text)


def _rules(debugger: DebuggerResult) -> GateCheck:
    """What a rule could not tell is named, and is no reason to keep a model out."""
    blocking = debugger["blocking"]
    unknown = [rule["rule"] for rule in debugger["rules"] if rule["verdict"] == "unknown"]
    text = "no Debugger rule with the policy fail found anything"
    if unknown:
        text += f"; could not tell: {', '.join(unknown)}"
    if blocking:
        text = f"Debugger rules with the policy fail found something: {', '.join(blocking)}"
    return _none_allowed("debugger_rules", len(blocking), text)


def _none_allowed(name: str, count: int, text: str) -> GateCheck:
    return {"name": name, "passed": count == 0, "value": count, "threshold": 0, "text": text}


def _ask(settings: Gate, document: EvaluationDocument) -> str | None:
    """Why a person has to decide. A wrong prefix must not replace a model that knows more."""
    lost = document["classes"]["only_champion"]
    if document["comparison"] is None or not lost or settings.allow_lost_classes:
        return None
    noun = "a class" if len(lost) == 1 else f"{len(lost)} classes"
    return f"it lacks {noun} of the champion ({_names(lost)})"


def _sentence(checks: Sequence[GateCheck], ask: str | None) -> str:
    """The decision with the checks that failed, and always with the accuracy."""
    accuracy, *others = checks
    if ask:
        return f"The challenger goes live only if a person approves, because {ask}: {accuracy['text']}."
    failed = [check["text"] for check in others if not check["passed"]]
    if accuracy["passed"] and failed:
        return f"The challenger stays out: {'; '.join(failed)}. It has {accuracy['text']}."
    reasons = "; ".join([accuracy["text"], *failed])
    return f"The challenger {'goes live' if accuracy['passed'] else 'stays out'}: {reasons}."


def _figures(document: EvaluationDocument) -> GateFigures:
    champion, comparison = document["models"]["champion"], document["comparison"]
    return {
        "challenger": _model(document["models"]["challenger"]),
        "champion": _model(champion) if champion else None,
        "improvement": _gain(comparison) if comparison else None,
        "weakest_classes": weakest_classes(document)[:_WORST],
        "test": document["test"],
    }


def _model(model: EvaluatedModel) -> ModelFigures:
    return {
        "arch": model["arch"],
        "image_size": model["image_size"],
        "classes": model["classes"],
        "accuracy": model["accuracy"],
        "top5_accuracy": model["top5_accuracy"],
        "macro_f1": model["macro_f1"],
        "calibration_error": model["expected_calibration_error"],
        "latency_ms": model["latency"]["median_ms"] if model["latency"] else None,
        "parameters": model["size"]["parameters"],
    }


def _gain(comparison: Comparison) -> Improvement:
    return {**comparison["accuracy"], "confidence": 100 * comparison["bootstrap"]["confidence"]}


def weakest_classes(document: EvaluationDocument) -> list[ClassRecall]:
    """The classes with test images, weakest first.

    With a champion: those that both models know, by their loss of recall. Without one: by their recall.
    """
    if document["comparison"] is not None:
        return [
            {
                "class": row["class"],
                "support": row["support"],
                "challenger": row["challenger"],
                "champion": row["champion"],
                "difference": difference,
            }
            for difference, row in _recall_changes(document["comparison"])
        ]
    rows: list[ClassRecall] = [
        {
            "class": row["class"],
            "support": row["support"],
            "challenger": row["recall"],
            "champion": None,
            "difference": None,
        }
        for row in document["models"]["challenger"]["per_class"]
        if row["recall"] is not None
    ]
    return sorted(rows, key=lambda row: (row["challenger"], row["class"]))


def _recall_changes(comparison: Comparison) -> list[tuple[float, RecallDifference]]:
    """The difference in recall of each class that both models know and the test images show; losses first."""
    changes = [
        (row["difference"], row)
        for row in comparison["recall"]
        if row["known_to"] == "both" and row["difference"] is not None
    ]
    return sorted(changes, key=lambda change: (change[0], change[1]["class"]))


def _loss(difference: float, row: RecallDifference) -> str:
    """A class's recall with both models, and the numbers of images behind it."""
    right = [round(recall * row["support"]) for recall in (row["champion"], row["challenger"])]
    return (
        f"{row['class']} falls from recall {row['champion']:.2f} to {row['challenger']:.2f} "
        f"({signed(difference, 2)}; from {right[0]} to {right[1]} of {row['support']} images)"
    )


def _names(classes: Sequence[str]) -> str:
    shown = ", ".join(classes[:_NAMED])
    return f"{shown} and {len(classes) - _NAMED} more" if len(classes) > _NAMED else shown


def _short(value: float | None) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
