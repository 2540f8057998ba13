"""Whether an endpoint answers as the evaluation job did for the same picture and the same model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retraining.aws.s3 import read
from retraining.planning.evaluation import PREDICTIONS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Offline:
    """The evaluation's answer for a picture."""

    predicted: str
    probability: float


@dataclass(frozen=True)
class Comparison:
    """An answer beside the evaluation's.

    `difference` is that of the probabilities which both give to the class that the evaluation predicted.
    """

    same_class: bool
    difference: float
    agrees: bool


def offline_predictions(s3: S3Client, output: str) -> dict[str, Offline]:
    """The challenger's predictions in an evaluation's folder, by the picture's key below the test prefix.

    Empty where there are none.
    """
    content = read(s3, f"{output}/{PREDICTIONS}")
    rows = [json.loads(line) for line in (content or b"").splitlines()]
    return {
        row["key"]: Offline(row["challenger"]["class"], float(row["challenger"]["probability"]))
        for row in rows
    }


def compare(top: Sequence[Mapping[str, Any]], offline: Offline, tolerance: float) -> Comparison:
    """Compare an endpoint's best classes with the evaluation's answer.

    The evaluation's class must have the same probability here, and be the best here, each within the
    tolerance. So two classes that are nearly equal may change places, as rounding on another machine does.
    A class that is not among the best has at most the smallest of their probabilities, and at most what they
    leave of 1.
    """
    given = {str(answer["class"]): float(answer["probability"]) for answer in top}
    best = float(top[0]["probability"])
    limit = min(*given.values(), max(0.0, 1 - sum(given.values()))) if given else 0.0
    own = given.get(offline.predicted, limit)
    difference = abs(own - offline.probability)
    return Comparison(
        same_class=top[0]["class"] == offline.predicted,
        difference=difference,
        agrees=difference <= tolerance and best - own <= 2 * tolerance,
    )
