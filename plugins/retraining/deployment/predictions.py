"""Test pictures sent to an endpoint: which ones, what it answers, and how long that takes."""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from retraining.aws.clients import Aws
from retraining.errors import VerificationError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
_ANY_IMAGE = "application/x-image"


def test_prefix(dataset: Mapping[str, Any]) -> str:
    """Key prefix of the test split, with a slash at its end."""
    return f"{dataset['prefix']}/test/".lstrip("/")


def test_keys(
    s3: S3Client, dataset: Mapping[str, Any], etags: Mapping[str, str] | None
) -> dict[str, list[str]]:
    """Keys of the test pictures, by class.

    With `etags`, those that the pictures had once, by their paths below the data set's prefix, only pictures
    that still have theirs; the log says how many others there are.
    """
    prefix = test_prefix(dataset)
    keys: dict[str, list[str]] = {}
    others = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=dataset["bucket"], Prefix=prefix):
        for entry in page.get("Contents", []):
            path = entry["Key"].removeprefix(prefix)
            label, _, name = path.partition("/")
            if not name:
                continue
            if etags is None or etags.get(f"test/{path}") == entry["ETag"].strip('"'):
                keys.setdefault(label, []).append(entry["Key"])
            else:
                others.append(path)
    if others:
        log.warning("%d test pictures are new or changed and passed over, such as %s", len(others), others[0])
    return keys


def sample(keys_by_class: Mapping[str, list[str]], limit: int | None) -> list[str]:
    """Up to `limit` keys, one of each class in turn, evenly over a class's sorted keys; always the same."""
    total = sum(len(keys) for keys in keys_by_class.values())
    limit = total if limit is None else min(limit, total)
    classes = {label: _spread(sorted(keys)) for label, keys in sorted(keys_by_class.items())}
    rounds = (
        key
        for n in range(max(map(len, classes.values()), default=0))
        for keys in classes.values()
        for key in keys[n : n + 1]
    )
    return [key for key, _ in zip(rounds, range(limit), strict=False)]


def ask(aws: Aws, endpoint: str, bucket: str, key: str) -> dict[str, Any]:
    """The endpoint's answer to one picture.

    Returns `{image, class, predicted, probability, milliseconds, top}`; `class` is the true one. Raises
    VerificationError where there is no answer, or none that can be read.
    """
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
        top = json.loads(answer["Body"].read())["predictions"]
        milliseconds = round((time.perf_counter() - started) * 1000, 1)
        predicted, probability = str(top[0]["class"]), float(top[0]["probability"])
    except (ClientError, BotoCoreError, ValueError, TypeError, KeyError, IndexError) as error:
        raise VerificationError(
            f"The endpoint {endpoint} did not answer for s3://{bucket}/{key}: {error}"
        ) from error
    return {
        "image": f"s3://{bucket}/{key}",
        "class": path.parent.name,
        "predicted": predicted,
        "probability": probability,
        "milliseconds": milliseconds,
        "top": top,
    }


def latency(answers: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds of at least one request: `{median, p95, max}`, p95 by nearest rank."""
    times = sorted(float(answer["milliseconds"]) for answer in answers)
    return {
        "median": round(statistics.median(times), 1),
        "p95": times[math.ceil(0.95 * len(times)) - 1],
        "max": times[-1],
    }


def _spread(keys: Sequence[str]) -> list[str]:
    """The keys in an order whose every beginning is spread over all of them (steps of the golden ratio)."""
    return [key for _, key in sorted(((n * 0.618033988749895) % 1, key) for n, key in enumerate(keys))]
