"""The files that the evaluation job writes, which `sagemaker_code/evaluation/results.py` describes in full.

The types name what this side reads of evaluation.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, cast

from retraining.aws.s3 import read_json
from retraining.planning.evaluation import DOCUMENT
from retraining.runs.results import Difference

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FORMAT_VERSION = 2


class EvaluatedLatency(TypedDict):
    """Milliseconds of single images on the CPU."""

    median_ms: float
    p95_ms: float


class EvaluatedSize(TypedDict):
    parameters: int


EvaluatedClass = TypedDict("EvaluatedClass", {"class": str, "support": int, "recall": float | None})


class EvaluatedModel(TypedDict):
    arch: str
    image_size: int
    classes: int
    accuracy: float
    top5_accuracy: float
    macro_f1: float
    negative_log_likelihood: float
    expected_calibration_error: float
    per_class: list[EvaluatedClass]
    latency: EvaluatedLatency | None
    size: EvaluatedSize


class EvaluatedModels(TypedDict):
    challenger: EvaluatedModel
    champion: EvaluatedModel | None


class Bootstrap(TypedDict):
    samples: int
    confidence: float
    seed: int


RecallDifference = TypedDict(
    "RecallDifference",
    {
        "class": str,
        "known_to": Literal["both", "challenger", "champion"],
        "support": int,
        "challenger": float,
        "champion": float,
        "difference": float | None,
    },
)


class CommonAccuracy(TypedDict):
    """On the test images of classes that both models know; None where there are none."""

    images: int
    challenger: float | None
    champion: float | None


class Comparison(TypedDict):
    bootstrap: Bootstrap
    accuracy: Difference
    accuracy_on_common_classes: CommonAccuracy
    macro_f1: Difference
    recall: list[RecallDifference]


class EvaluatedClasses(TypedDict):
    only_challenger: list[str]
    only_champion: list[str]
    without_images: list[str]


class EvaluationDocument(TypedDict):
    """The content of evaluation.json; `comparison` is None without a champion."""

    format_version: int
    test: dict[str, int]
    classes: EvaluatedClasses
    models: EvaluatedModels
    comparison: Comparison | None
    charts: list[str]


def read_evaluation(s3: S3Client, folder: str) -> EvaluationDocument | None:
    """The document in the evaluation's output folder; None where it is missing or has another format."""
    document = read_json(s3, f"{folder}/{DOCUMENT}")
    if document is None or document.get("format_version") != FORMAT_VERSION:
        return None
    return cast("EvaluationDocument", document)
