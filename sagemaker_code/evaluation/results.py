"""The results as files.

`evaluation.json`; without a champion, its parts and `comparison` are null:

    format_version  2
    test            {images, classes}: classes counts those with images
    classes         {union, common, only_challenger, only_champion, without_images}: lists of class names;
                    the index in `union` is that of confusion matrices
    models          {challenger, champion}: each
        source, arch, image_size, classes, weights_sha256
        accuracy, top5_accuracy, macro_f1, negative_log_likelihood, expected_calibration_error
        calibration     {bins: [{low, high, images, confidence, accuracy}]}
        per_class       [{class, label, known, support, recall, precision, f1}] in the order of `union`
        confusion_matrix  [[images]], rows by label, columns by prediction
        latency         {median_ms, p95_ms, images, threads} of single images on the CPU, or null
        size            {archive_bytes, weights_bytes, parameters}: archive_bytes null for an unpacked model
    comparison
        bootstrap       {samples, confidence, seed}
        accuracy, macro_f1, accuracy_on_common_classes (with `images`)
                        {challenger, champion, difference, interval: [low, high], lower_bound, upper_bound}:
                        challenger minus champion; the interval is two-sided, each bound one-sided, all at
                        `confidence`
        mcnemar         {both_right, only_challenger_right, only_champion_right, both_wrong, p_value}
        recall          [{class, known_to: both | challenger | champion, support, challenger, champion,
                        difference, interval, lower_bound, upper_bound, only_challenger_right,
                        only_champion_right, mcnemar_p_value}] in the order of `union`
    charts          file names of the charts beside it

Undefined metrics, such as the recall of a class without images, are null.

`model_quality.json` holds the challenger's metrics in the format of SageMaker Model Monitor's model quality
for multiclass problems, to which a model package's ModelMetrics refer.

`predictions.jsonl` has one line per image: key, true, and for each model {class, probability}.

`images/<key>` are some of the test images, in case the dataset changes.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from classifier.files import write_atomically
from classifier.prediction import label

from evaluation.bootstrap import Resampling, resample
from evaluation.comparison import Comparison
from evaluation.metrics import ClassCounts, Floats, class_counts, confusion_matrix
from evaluation.model_metrics import ModelMetrics
from evaluation.scoring import TestSet

FORMAT_VERSION = 2
ROLES = ("challenger", "champion")


def evaluation(
    test: TestSet, models: Mapping[str, ModelMetrics], comparison: Comparison | None, charts: Sequence[str]
) -> dict[str, Any]:
    """The content of evaluation.json, as described above."""
    known = {role: set(metrics.candidate.card.classes) for role, metrics in models.items()}
    challenger, champion = known["challenger"], known.get("champion", known["challenger"])
    return {
        "format_version": FORMAT_VERSION,
        "test": {"images": len(test.files), "classes": len(test.present)},
        "classes": {
            "union": list(test.classes),
            "common": sorted(challenger & champion),
            "only_challenger": sorted(challenger - champion),
            "only_champion": sorted(champion - challenger),
            "without_images": [name for name in test.classes if name not in test.present],
        },
        "models": {role: _model(models[role], test.classes) if role in models else None for role in ROLES},
        "comparison": comparison.document if comparison else None,
        "charts": list(charts),
    }


def _model(metrics: ModelMetrics, classes: Sequence[str]) -> dict[str, Any]:
    candidate, counts = metrics.candidate, metrics.counts
    return {
        "source": str(candidate.source),
        "arch": candidate.card.arch,
        "image_size": candidate.card.image_size,
        "classes": len(candidate.card.classes),
        "weights_sha256": candidate.card.weights_sha256,
        "accuracy": float(counts.accuracy),
        "top5_accuracy": metrics.top_k_accuracy,
        "macro_f1": float(counts.macro_f1),
        "negative_log_likelihood": metrics.negative_log_likelihood,
        "expected_calibration_error": metrics.calibration.error,
        "calibration": {"bins": _bins(metrics)},
        "per_class": [
            {
                "class": name,
                "label": label(name),
                "known": name in candidate.card.classes,
                "support": int(counts.support[index]),
                "recall": float(counts.recall[index]),
                "precision": float(counts.precision[index]),
                "f1": float(counts.f_score()[index]),
            }
            for index, name in enumerate(classes)
        ],
        "confusion_matrix": metrics.confusion.tolist(),
        "latency": dataclasses.asdict(metrics.latency) if metrics.latency else None,
        "size": {
            "archive_bytes": candidate.archive_bytes,
            "weights_bytes": candidate.weights_bytes,
            "parameters": candidate.parameters,
        },
    }


def _bins(metrics: ModelMetrics) -> list[dict[str, float]]:
    bins = metrics.calibration
    names = ("low", "high", "images", "confidence", "accuracy")
    columns = (bins.edges[:-1], bins.edges[1:], bins.images, bins.confidence, bins.accuracy)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def model_quality(test: TestSet, model: ModelMetrics, resampling: Resampling) -> dict[str, Any]:
    """The content of model_quality.json: Model Monitor's statistics for multiclass problems.

    https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html. Standard
    deviations come from the bootstrap. The best constant classifier always predicts the most frequent class.
    """
    frequent = np.full_like(test.labels, np.bincount(test.labels).argmax())
    drawn = resample(test.labels, [model.predictions, frequent], len(test.classes), resampling)
    given = [model.counts, class_counts(confusion_matrix(test.labels, frequent, len(test.classes)))]
    metrics: dict[str, Any] = {
        "confusion_matrix": {
            name: dict(zip(test.classes, row, strict=True))
            for name, row in zip(test.classes, model.confusion.tolist(), strict=True)
        }
    }
    for suffix, value, values in zip(("", "_best_constant_classifier"), given, drawn, strict=True):
        deviations = _aggregates(values)
        metrics |= {
            name + suffix: {"value": float(mean), "standard_deviation": float(deviations[name].std())}
            for name, mean in _aggregates(value).items()
        }
    return {
        "version": 0.0,
        "dataset": {"item_count": len(test.files)},
        "multiclass_classification_metrics": metrics,
    }


def _aggregates(counts: ClassCounts) -> dict[str, Floats]:
    return {
        "accuracy": counts.accuracy,
        "weighted_recall": counts.weighted(counts.recall),
        "weighted_precision": counts.weighted(counts.precision),
        "weighted_f0_5": counts.weighted(counts.f_score(0.5)),
        "weighted_f1": counts.weighted(counts.f_score()),
        "weighted_f2": counts.weighted(counts.f_score(2.0)),
    }


def predictions(test: TestSet, models: Mapping[str, ModelMetrics]) -> list[dict[str, Any]]:
    """One entry per image in the order of the test set; `champion` is null without a champion."""
    return [
        {
            "key": key,
            "true": test.classes[test.labels[index]],
            **{
                role: {
                    "class": test.classes[models[role].predictions[index]],
                    "probability": float(models[role].confidences[index]),
                }
                if role in models
                else None
                for role in ROLES
            },
        }
        for index, key in enumerate(test.keys)
    ]


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON: numbers that are not finite become null."""
    write_atomically(path, (json.dumps(_strict(content), indent=2, allow_nan=False) + "\n").encode())


def write_json_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _strict(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _strict(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_strict(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
