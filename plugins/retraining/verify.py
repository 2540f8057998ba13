"""The endpoint, asked what it was deployed for: test pictures go in, and their classes should come out."""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from retraining.aws import Aws
from retraining.errors import VerificationError
from retraining.pipeline import Pipeline

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
_ANY_IMAGE = "application/x-image"
# With this many standard errors between them, the endpoint's accuracy on a sample is not that of the trained
# model.
_STANDARD_ERRORS = 4.0


def verify_endpoint(
    pipeline: Pipeline,
    dataset: Mapping[str, Any],
    training: Mapping[str, Any],
    endpoint: Mapping[str, Any],
    aws: Aws,
) -> dict[str, Any]:
    """Send test pictures, spread evenly over the classes, and compare the answers with the true classes.

    Returns `{endpoint, images, accuracy, trained_accuracy, latency_ms: {median, p95, max}, predictions:
    [{image, class, predicted, probability, milliseconds, top}]}`; `predictions` are the first of each class,
    as many as the pipeline shows.
    Raises VerificationError if a picture gets no answer or the accuracy is not
    that of the trained model.
    """
    keys = sample(_test_keys(aws.s3, dataset), pipeline.verify.images)
    answers = [_ask(aws, endpoint["name"], dataset["bucket"], key) for key in keys]
    right = sum(answer["predicted"] == answer["class"] for answer in answers)
    accuracy = right / len(answers)
    times = sorted(answer["milliseconds"] for answer in answers)
    trained = training["metrics"].get("test:accuracy")
    result = {
        "endpoint": endpoint["name"],
        "images": len(answers),
        "accuracy": round(accuracy, 4),
        "trained_accuracy": trained,
        "latency_ms": {
            "median": round(statistics.median(times), 1),
            "p95": round(times[math.ceil(0.95 * len(times)) - 1], 1),
            "max": round(times[-1], 1),
        },
        "predictions": answers[: pipeline.verify.shown],
    }
    for answer in result["predictions"]:
        log.info(
            "%(image)s: %(predicted)s (%(probability).2f), it is %(class)s, %(milliseconds).0f ms", answer
        )
    log.info(
        "%d of %d test pictures right (%.4f); the training job measured %s",
        right,
        len(answers),
        accuracy,
        trained,
    )
    if trained is not None and not plausible(accuracy, float(trained), len(answers)):
        raise VerificationError(
            f"The endpoint {endpoint['name']} gets {accuracy:.3f} of {len(answers)} test pictures right, "
            f"the trained model {trained:.3f}: it does not serve that model, or prepares pictures otherwise "
            "than training did."
        )
    return result


def sample(keys_by_class: Mapping[str, list[str]], limit: int | None) -> list[str]:
    """Up to `limit` keys, one of each class in turn, evenly over a class's sorted keys; always the same."""
    total = sum(len(keys) for keys in keys_by_class.values())
    limit = total if limit is None else min(limit, total)
    classes = {label: _spread(sorted(keys)) for label, keys in sorted(keys_by_class.items())}
    rounds = (
        key
        for n in range(max(map(len, classes.values())))
        for keys in classes.values()
        for key in keys[n : n + 1]
    )
    return [key for key, _ in zip(rounds, range(limit), strict=False)]


def plausible(accuracy: float, expected: float, count: int) -> bool:
    """Whether a sample of `count` pictures can have this accuracy if the model's is `expected`.

    The standard error is the binomial one, of an expectation kept away from 0 and 1 by one picture of the
    sample.
    """
    kept = min(max(expected, 1 / count), 1 - 1 / count) if count > 1 else 0.5
    return abs(accuracy - expected) <= _STANDARD_ERRORS * math.sqrt(kept * (1 - kept) / count)


def _spread(keys: list[str]) -> list[str]:
    """The keys in an order whose every beginning is spread over all of them (steps of the golden ratio)."""
    return [key for _, key in sorted(((n * 0.618033988749895) % 1, key) for n, key in enumerate(keys))]


def _test_keys(s3: S3Client, dataset: Mapping[str, Any]) -> dict[str, list[str]]:
    prefix = f"{dataset['prefix']}/test/".lstrip("/")
    keys: dict[str, list[str]] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dataset["bucket"], Prefix=prefix):
        for entry in page.get("Contents", []):
            label = entry["Key"].removeprefix(prefix).split("/")[0]
            keys.setdefault(label, []).append(entry["Key"])
    return keys


def _ask(aws: Aws, endpoint: str, bucket: str, key: str) -> dict[str, Any]:
    picture = aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    path = PurePosixPath(key)
    started = time.perf_counter()
    try:
        answer = aws.runtime.invoke_endpoint(
            EndpointName=endpoint,
            ContentType=_TYPES.get(path.suffix.lower(), _ANY_IMAGE),
            Accept="application/json",
            Body=picture,
        )
        content = json.loads(answer["Body"].read())
        top = content["predictions"]
        best = top[0]
    except (ClientError, ValueError, KeyError, IndexError) as error:
        raise VerificationError(
            f"The endpoint {endpoint} did not answer for s3://{bucket}/{key}: {error}"
        ) from error
    return {
        "image": f"s3://{bucket}/{key}",
        "class": path.parent.name,
        "predicted": best["class"],
        "probability": best["probability"],
        "milliseconds": round((time.perf_counter() - started) * 1000, 1),
        "top": top,
    }
