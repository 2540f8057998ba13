"""Evaluations as evaluate.py writes them, made from numbers of correct predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_RULES: Any = {"mode": "service", "rules": [], "blocking": [], "report": None, "report_url": None}
CHARTS = ["confusion_matrix.png", "recall_by_class.png"]


def evaluation_document(
    challenger: Mapping[str, int],
    champion: Mapping[str, int] | None = None,
    *,
    images: int | Mapping[str, int] = 10,
    lower_bound: float | None = None,
    confidence: float = 0.95,
) -> Any:
    """The document of models that predict so many of the test images of each class correctly.

    A model does not know the classes that its mapping lacks. `images` is the number of test images of every
    class, or of each one; `lower_bound` of the accuracy's difference is the difference itself unless given.
    """
    given = {"challenger": challenger, **({"champion": champion} if champion is not None else {})}
    union = sorted({name for right in given.values() for name in right})
    shown = dict.fromkeys(union, images) if isinstance(images, int) else {**images}
    total = sum(shown.values())
    known = {role: set(right) for role, right in given.items()}
    other = known.get("champion", known["challenger"])
    models = {role: _model(right, union, shown, total) for role, right in given.items()}
    return {
        "format_version": 2,
        "test": {"images": total, "classes": sum(count > 0 for count in shown.values())},
        "classes": {
            "union": union,
            "common": sorted(known["challenger"] & other),
            "only_challenger": sorted(known["challenger"] - other),
            "only_champion": sorted(other - known["challenger"]),
            "without_images": [name for name in union if not shown[name]],
        },
        "models": {"champion": None, **models},
        "comparison": _comparison(
            models=models,
            union=union,
            shown=shown,
            known=known,
            lower_bound=lower_bound,
            confidence=confidence,
        )
        if champion is not None
        else None,
        "charts": CHARTS,
    }


def _model(
    right: Mapping[str, int], union: list[str], shown: Mapping[str, int], total: int
) -> dict[str, Any]:
    accuracy = sum(right.values()) / total
    return {
        "arch": "squeezenet1_1",
        "image_size": 32,
        "classes": len(right),
        "accuracy": accuracy,
        "top5_accuracy": 1.0,
        "macro_f1": accuracy,
        "expected_calibration_error": 0.05,
        "negative_log_likelihood": 0.5,
        "per_class": [
            {
                "class": name,
                "known": name in right,
                "support": shown[name],
                "recall": right.get(name, 0) / shown[name] if shown[name] else None,
            }
            for name in union
        ],
        "latency": {"median_ms": 4.5, "p95_ms": 6.0, "images": 10, "threads": 2},
        "size": {"archive_bytes": 3_000_000, "weights_bytes": 2_900_000, "parameters": 723_522},
    }


def _comparison(
    *,
    models: Mapping[str, Any],
    union: list[str],
    shown: Mapping[str, int],
    known: Mapping[str, set[str]],
    lower_bound: float | None,
    confidence: float,
) -> dict[str, Any]:
    accuracies = {role: model["accuracy"] for role, model in models.items()}
    difference = accuracies["challenger"] - accuracies["champion"]
    bound = difference if lower_bound is None else lower_bound
    common = known["challenger"] & known["champion"]
    images = sum(shown[name] for name in common)
    right = {
        role: sum(
            row["recall"] * row["support"]
            for row in model["per_class"]
            if row["class"] in common and row["support"]
        )
        for role, model in models.items()
    }
    rows = []
    for place, name in enumerate(union):
        recall = {role: model["per_class"][place]["recall"] for role, model in models.items()}
        knowing = [role for role, classes in known.items() if name in classes]
        rows.append(
            {
                "class": name,
                "known_to": "both" if len(knowing) == 2 else knowing[0],
                "support": shown[name],
                **recall,
                "difference": recall["challenger"] - recall["champion"] if shown[name] else None,
            }
        )
    return {
        "bootstrap": {"samples": 2000, "confidence": confidence, "seed": 0},
        "accuracy": {
            **accuracies,
            "difference": difference,
            "interval": [bound, 2 * difference - bound],
            "lower_bound": bound,
            "upper_bound": 2 * difference - bound,
        },
        "accuracy_on_common_classes": {
            "images": images,
            **{role: count / images if images else None for role, count in right.items()},
        },
        "recall": rows,
    }
