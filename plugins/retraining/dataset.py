"""The data set in S3, read before anything is paid for: structure, counts, and every picture decoded once."""

from __future__ import annotations

import io
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from retraining.aws import Aws, bucket_of, split_uri
from retraining.errors import DatasetError
from retraining.form import RunSettings
from retraining.pipeline import Pipeline
from retraining.sections import Dataset

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
_THREADS = 16
_BATCH = 1000
_PROGRESS_SECONDS = 10
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
_MAX_PIXELS = 64_000_000
_LISTED = 20  # offenders named in an error; the log names all


@dataclass(frozen=True)
class Picture:
    """An object of the data set: `<prefix>/<split>/<class>/<file>`."""

    key: str
    split: str
    label: str


def check_dataset(pipeline: Pipeline, settings: RunSettings, aws: Aws) -> dict[str, Any]:
    """Check the whole data set.

    Returns `{uri, bucket, prefix, classes, images: {split: n}, counts: {split: {class: n}}}`.
    Raises DatasetError, which lists what is wrong and how to put it right.
    """
    bucket, prefix = location(settings, aws)
    _check_bucket(aws.s3, bucket)
    uri = f"s3://{bucket}/{prefix}"
    pictures, problems = _structure(_keys(aws.s3, bucket, prefix), uri, prefix)
    counts = {split: Counter(p.label for p in pictures if p.split == split) for split in SPLITS}
    problems += _count_problems(counts, pipeline.dataset)
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise DatasetError(_report(uri, problems))
    log.info("Reading %d pictures of %d classes in %s", len(pictures), len(counts["train"]), uri)
    unreadable = list(_unreadable(aws.s3, bucket, pictures))
    if unreadable:
        raise DatasetError(
            _report(uri, [*unreadable, "replace or delete these files, then start the run again"])
        )
    summary = {split: sum(counts[split].values()) for split in SPLITS}
    log.info("The data set is sound: %s", ", ".join(f"{split} {n}" for split, n in summary.items()))
    return {
        "uri": uri,
        "bucket": bucket,
        "prefix": prefix,
        "classes": sorted(counts["train"]),
        "images": summary,
        "counts": {split: dict(sorted(counts[split].items())) for split in SPLITS},
    }


def location(settings: RunSettings, aws: Aws) -> tuple[str, str]:
    """Bucket and key prefix (without slashes at its ends) of the data set."""
    if settings.dataset_prefix.startswith("s3://"):
        return split_uri(settings.dataset_prefix)
    return bucket_of(aws, settings.bucket), settings.dataset_prefix.strip("/")


def _check_bucket(s3: S3Client, bucket: str) -> None:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status == 404:
            raise DatasetError(
                f"The bucket {bucket} does not exist. Create it and upload the data set, or name another "
                "bucket in the form or in the pipeline file."
            ) from error
        if status == 403:
            raise DatasetError(
                f"The connection's credentials may not read the bucket {bucket}. Grant s3:ListBucket and "
                "s3:GetObject."
            ) from error
        raise


def _keys(s3: S3Client, bucket: str, prefix: str) -> Iterator[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
    for page in pages:
        for entry in page.get("Contents", []):
            yield entry["Key"]


def _structure(keys: Iterable[str], uri: str, prefix: str) -> tuple[list[Picture], list[str]]:
    """The pictures, and the class folders that are empty (keys that end in a slash).

    Hidden files do not count, as in the training script; what lies outside the class folders is not used.
    """
    pictures: list[Picture] = []
    folders: set[tuple[str, str]] = set()
    unused: list[str] = []
    for key in keys:
        split, label, name = _parts(key.removeprefix(prefix).lstrip("/"))
        if split in SPLITS and label and name:
            pictures.append(Picture(key, split, label))
        elif split in SPLITS and key.endswith("/"):
            folders.add((split, label))
        elif not name.startswith("."):
            unused.append(key)
    if not pictures:
        raise DatasetError(
            f"There is no picture under {uri}/. Upload the data set there as train/<class>/<file>, "
            "valid/..., test/..., or name another place in the form or in the pipeline file."
        )
    if unused:
        log.warning(
            "%d files are not at <split>/<class>/<file> and not used: %s", len(unused), unused[:_LISTED]
        )
    filled = {(p.split, p.label) for p in pictures}
    empty = sorted((split, label) for split, label in folders if label and (split, label) not in filled)
    return pictures, [
        f"{split}/{label}/: is empty; add pictures or delete the folder" for split, label in empty
    ]


def _parts(path: str) -> tuple[str, str, str]:
    """Split, class and file of a path below the prefix; the file is empty for a folder."""
    split, _, rest = path.partition("/")
    label, slash, name = rest.partition("/")
    if not slash:
        return split, "", label or split
    hidden = any(part.startswith(".") for part in (label, *name.split("/")))
    return split, "" if hidden else label, name if not hidden else ".hidden"


def _count_problems(counts: dict[str, Counter[str]], limits: Dataset) -> list[str]:
    least = {
        "train": limits.min_train_images,
        "valid": limits.min_valid_images,
        "test": limits.min_test_images,
    }
    problems = [f"{split}/: holds no picture; add the split" for split in SPLITS if not counts[split]]
    for split in ("valid", "test"):
        problems += [
            f"{split}/{label}/: the class is absent from train/; add it there or delete it here"
            for label in sorted(counts[split].keys() - counts["train"].keys())
        ]
    for split in SPLITS:
        problems += [
            f"{split}/{label}/: {counts[split][label]} pictures, at least {least[split]} are needed; add some"
            for label in sorted(counts["train"])
            if counts[split] and counts[split][label] < least[split]
        ]
    if len(counts["train"]) == 1:
        problems.append(
            f"train/: holds the one class {next(iter(counts['train']))!r}; a classifier needs two"
        )
    return problems


def _unreadable(s3: S3Client, bucket: str, pictures: list[Picture]) -> Iterator[str]:
    """Read every picture, a few at a time, and yield what is wrong with those that cannot be decoded."""
    started = said = time.monotonic()
    remaining, done = iter(pictures), 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="picture") as pool:
        while batch := list(islice(remaining, _BATCH)):
            for picture, wrong in zip(batch, pool.map(lambda p: _problem(s3, bucket, p), batch), strict=True):
                done += 1
                if wrong:
                    log.error("%s: %s", picture.key, wrong)
                    yield f"{picture.key}: {wrong}"
                if time.monotonic() - said > _PROGRESS_SECONDS:
                    said = time.monotonic()
                    log.info("%d of %d pictures read", done, len(pictures))
    log.info("%d pictures read in %.1f s", done, time.monotonic() - started)


def _problem(s3: S3Client, bucket: str, picture: Picture) -> str | None:
    return picture_problem(s3.get_object(Bucket=bucket, Key=picture.key)["Body"].read())


def picture_problem(content: bytes) -> str | None:
    """What is wrong with a picture file, or None.

    A JPEG is decoded at a small scale, which reads all of it. Formats and size are those that training takes.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        return "is empty"
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                return f"has {image.width} x {image.height} pixels, at most {_MAX_PIXELS:,} are accepted"
            image.draft("RGB", (64, 64))
            image.load()
    except UnidentifiedImageError:
        return f"is no image in one of the formats {', '.join(_FORMATS)}"
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        return f"is damaged or cut off ({error})"
    return None


def _report(uri: str, problems: list[str]) -> str:
    more = len(problems) - _LISTED
    lines = (
        problems
        if more <= 0
        else [*problems[: _LISTED - 1], f"... and {more} more, see the log", problems[-1]]
    )
    return f"The data set {uri} cannot be used:\n" + "\n".join(f"  - {line}" for line in lines)
