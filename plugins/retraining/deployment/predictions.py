"""Test images for an endpoint: sending them, and comparing predictions with the evaluation's."""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from retraining.aws.clients import Aws
from retraining.aws.s3 import content_of, read, split_uri
from retraining.errors import NoAnswerError, VerificationError
from retraining.planning.evaluation import IMAGES, PREDICTIONS
from retraining.runs.results import ClassProbability, Latency, Prediction

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

ANY_IMAGE = "application/x-image"
CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
"""Content types of requests by the image file's suffix; ANY_IMAGE for others."""


@dataclass(frozen=True)
class Comparison:
    """A prediction compared with the evaluation's for the same image.

    `difference` is between the probabilities that the two give to the class that the evaluation predicted.
    """

    same_class: bool
    difference: float
    agrees: bool


def kept_images(s3: S3Client, output: str) -> dict[str, str]:
    """The test images that an evaluation kept in its output folder: their S3 keys by `<class>/<file>`.

    One of each class comes first.
    """
    bucket, folder = split_uri(f"{output}/{IMAGES}")
    by_class: dict[str, list[str]] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{folder}/"):
        for entry in page.get("Contents", []):
            name = entry["Key"].removeprefix(f"{folder}/")
            by_class.setdefault(name.partition("/")[0], []).append(name)
    rounds = zip_longest(*by_class.values())
    return {name: f"{folder}/{name}" for names in rounds for name in names if name is not None}


def predict(aws: Aws, endpoint: str, bucket: str, key: str, label: str) -> Prediction:
    """The endpoint's prediction for one image of the true class `label`.

    Raises VerificationError if the model responds with an error, or so that the response cannot be read;
    NoAnswerError if the request did not reach it, or the response did not come back.
    """
    image = content_of(aws.s3, bucket, key)
    started = time.perf_counter()
    try:
        response = aws.runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType=CONTENT_TYPES.get(PurePosixPath(key).suffix.lower(), ANY_IMAGE),
            Accept="application/json",
            Body=image,
        )
        top = json.loads(response["Body"].read())["predictions"]
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        predicted, probability = str(top[0]["class"]), float(top[0]["probability"])
    except (ClientError, BotoCoreError, ValueError, TypeError, KeyError, IndexError) as error:
        text = f"The endpoint {endpoint} gave no prediction for s3://{bucket}/{key}: {error}"
        if _is_the_models(error):
            raise VerificationError(text) from error
        raise NoAnswerError(f"{text}. This says nothing about the model, so nothing was changed.") from error
    return {
        "image": f"s3://{bucket}/{key}",
        "class": label,
        "predicted": predicted,
        "probability": probability,
        "milliseconds": milliseconds,
        "top": top,
    }


def latency(predictions: Iterable[Prediction]) -> Latency:
    """Latency of at least one prediction, in milliseconds; p95 by nearest rank."""
    times = sorted(prediction["milliseconds"] for prediction in predictions)
    return {
        "median": round(statistics.median(times), 1),
        "p95": times[math.ceil(0.95 * len(times)) - 1],
        "max": times[-1],
    }


def offline_predictions(s3: S3Client, output: str) -> dict[str, ClassProbability]:
    """The challenger's best class for each image, from an evaluation's output folder.

    By the image's key below the test prefix; empty if the evaluation left no predictions.
    """
    rows = [json.loads(line) for line in (read(s3, f"{output}/{PREDICTIONS}") or b"").splitlines()]
    best = {row["key"]: row["challenger"] for row in rows}
    return {
        key: {"class": str(row["class"]), "probability": float(row["probability"])}
        for key, row in best.items()
    }


def compare(top: Sequence[ClassProbability], offline: ClassProbability, tolerance: float) -> Comparison:
    """Compare an endpoint's best classes, best first, with the evaluation's prediction.

    They agree if the evaluation's class has the same probability here and is the best here, each within the
    tolerance. So two almost equal classes may swap places, as they do when another machine rounds
    differently. A class that is not among the best is taken to have the highest probability that it can have:
    the smallest of theirs, or what they leave of 1 if that is less.
    """
    probabilities = {str(entry["class"]): float(entry["probability"]) for entry in top}
    best = float(top[0]["probability"])
    highest = min(*probabilities.values(), max(0.0, 1 - sum(probabilities.values())))
    own = probabilities.get(offline["class"], highest)
    difference = abs(own - offline["probability"])
    return Comparison(
        same_class=top[0]["class"] == offline["class"],
        difference=difference,
        agrees=difference <= tolerance and best - own <= 2 * tolerance,
    )


def _is_the_models(error: Exception) -> bool:
    """Whether the model's own response is at fault: SageMaker passes that on as a ModelError.

    It also gives one for a model that does not respond within 60 seconds. Dropped connections, throttling,
    credentials and missing permissions say nothing about the model.
    """
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] == "ModelError"
    return not isinstance(error, BotoCoreError)
