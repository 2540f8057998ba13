"""The dataset as S3 lists it: its location, its images, and whether splits and classes are complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retraining.aws.clients import Aws, bucket_of
from retraining.aws.s3 import split_uri
from retraining.config.sections import Dataset

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

SPLITS = ("train", "valid", "test")
Version = tuple[str, int]
"""ETag and size of an object: while they stay the same, so does its content, under this key or another."""


@dataclass(frozen=True, slots=True)
class DatasetImage:
    """An object of the dataset. `path` is `<split>/<class>/<file>`, its key below the dataset's prefix."""

    path: str
    split: str
    label: str
    etag: str
    size: int

    @property
    def version(self) -> Version:
        return self.etag, self.size


@dataclass(frozen=True)
class Listing:
    """The images in the order of their keys, class folders without images, and keys that are not used."""

    images: list[DatasetImage]
    empty: list[str]
    unused: list[str]

    def counts(self) -> dict[str, Counter[str]]:
        """Number of images by split and class."""
        counted: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for image in self.images:
            counted[image.split][image.label] += 1
        return counted


def dataset_location(prefix: str, bucket: str | None, aws: Aws) -> tuple[str, str]:
    """Bucket and key prefix of the dataset; the prefix has no slash at either end.

    `prefix` may be an s3:// URI, which names its own bucket; otherwise `bucket` holds the dataset, or, if
    it is None, SageMaker's default bucket.
    """
    if prefix.startswith("s3://"):
        return split_uri(prefix)
    return bucket_of(aws, bucket), prefix.strip("/")


def list_images(s3: S3Client, bucket: str, prefix: str) -> Listing:
    """List the dataset, 1,000 objects a request.

    Hidden files are skipped, as in the training script; files outside the class folders are not used.
    """
    return _classified(_objects(s3, bucket, prefix), prefix)


def structure_problems(listing: Listing, counts: dict[str, Counter[str]], limits: Dataset) -> list[str]:
    """Incomplete splits and classes, one line each, with the fix."""
    problems = [f"{folder}: is empty; add images or delete the folder" for folder in listing.empty]
    return [*problems, *_incomplete_splits(counts), *_unknown_classes(counts), *_too_few(counts, limits)]


def _objects(s3: S3Client, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
    for page in pages:
        yield from page.get("Contents", [])


def _classified(objects: Iterable[ObjectTypeDef], prefix: str) -> Listing:
    images: list[DatasetImage] = []
    folders: set[tuple[str, str]] = set()
    unused: list[str] = []
    for entry in objects:
        path = entry["Key"].removeprefix(prefix).lstrip("/")
        split, label, name = _parts(path)
        if split in SPLITS and label and name:
            images.append(DatasetImage(path, split, label, entry["ETag"].strip('"'), entry["Size"]))
        elif split in SPLITS and path.endswith("/"):
            folders.add((split, label))
        elif not name.startswith("."):
            unused.append(path)
    filled = {(image.split, image.label) for image in images}
    empty = sorted(f"{split}/{label}/" for split, label in folders - filled if label)
    return Listing(images, empty, unused)


def _parts(path: str) -> tuple[str, str, str]:
    """Split, class and file of a path below the prefix; the file is empty for a folder."""
    split, _, rest = path.partition("/")
    label, slash, name = rest.partition("/")
    if not slash:
        return split, "", label or split
    hidden = any(part.startswith(".") for part in (label, *name.split("/")))
    return split, "" if hidden else label, name if not hidden else ".hidden"


def _incomplete_splits(counts: dict[str, Counter[str]]) -> Iterator[str]:
    yield from (f"{split}/: holds no images; add the split" for split in SPLITS if not counts[split])
    if len(counts["train"]) == 1:
        only = next(iter(counts["train"]))
        yield f"train/: {only!r} is its only class; a classifier needs at least two"


def _unknown_classes(counts: dict[str, Counter[str]]) -> Iterator[str]:
    for split in ("valid", "test"):
        for label in sorted(counts[split].keys() - counts["train"].keys()):
            yield f"{split}/{label}/: the class is absent from train/; add it there or delete it here"


def _too_few(counts: dict[str, Counter[str]], limits: Dataset) -> Iterator[str]:
    least = {
        "train": limits.min_train_images,
        "valid": limits.min_valid_images,
        "test": limits.min_test_images,
    }
    for split in SPLITS:
        for label in sorted(counts["train"]):
            if counts[split] and (number := counts[split][label]) < least[split]:
                yield f"{split}/{label}/: {number} images, at least {least[split]} are needed; add some"
