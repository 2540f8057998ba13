"""The dataset as S3 lists it: its location, its images, and whether splits and classes are complete."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retraining.aws.clients import Aws, bucket_of
from retraining.aws.s3 import split_uri
from retraining.config.sections import Dataset
from retraining.dataset.reader import image_reader

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

SPLITS = ("train", "valid", "test")
_MARKERS = ("/", "_$folder$")  # ends of keys that stand for a folder
_LONGEST_NAME = 255  # bytes of a file's or folder's name
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
    """The images in the order of their keys, class folders without images, and keys that are not used.

    `ignored` are files beside images that are none, `unusable` are keys that cannot become files, with the
    reason.
    """

    images: list[DatasetImage]
    empty: list[str]
    unused: list[str]
    ignored: list[str]
    unusable: list[str]

    @property
    def paths(self) -> list[str]:
        """All paths below the prefix that are no marker of a folder."""
        return [*(image.path for image in self.images), *self.unused, *self.ignored]

    def counts(self) -> dict[str, Counter[str]]:
        """Number of images by split and class."""
        return counts_of(self.images)


def counts_of(images: Iterable[DatasetImage]) -> dict[str, Counter[str]]:
    """Number of images by split and class."""
    counted: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for image in images:
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
    return [
        *problems,
        *listing.unusable,
        *same_for_a_person({label for count in counts.values() for label in count}),
        *_incomplete_splits(counts),
        *_unknown_classes(counts),
        *_too_few(counts, limits),
    ]


def _objects(s3: S3Client, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
    for page in pages:
        yield from page.get("Contents", [])


def _classified(objects: Iterable[ObjectTypeDef], prefix: str) -> Listing:
    images: list[DatasetImage] = []
    folders: set[tuple[str, str]] = set()
    unused: list[str] = []
    ignored: list[str] = []
    for entry in objects:
        path = entry["Key"].removeprefix(prefix).removeprefix("/")
        split, label, name = _parts(path)
        if path.endswith(_MARKERS):
            folders.add((split, label.removesuffix(_MARKERS[1])))
        elif split in SPLITS and label and name:
            if image_reader().is_image_name(name.rpartition("/")[2]):
                images.append(DatasetImage(path, split, label, entry["ETag"].strip('"'), entry["Size"]))
            else:
                ignored.append(path)
        elif not name.startswith("."):
            unused.append(path)
    filled = {(image.split, image.label) for image in images}
    empty = sorted(f"{split}/{label}/" for split, label in folders - filled if split in SPLITS and label)
    return Listing(images, empty, unused, ignored, list(_unusable(images)))


def _unusable(images: Iterable[DatasetImage]) -> Iterator[str]:
    """Keys that a training job cannot lay down as files: one would fail after it has been paid for."""
    paths = {image.path for image in images}
    folders = {folder for path in paths for folder in _parents(path)}
    for path in sorted(paths):
        parts = path.split("/")
        if "" in parts or not {".", ".."}.isdisjoint(parts):
            yield f"{path!r}: has an empty folder, '.' or '..' in its key; copy it to another key"
        elif any(len(part.encode()) > _LONGEST_NAME for part in parts):
            yield f"{path!r}: has a name of more than {_LONGEST_NAME} bytes; rename it"
        elif path in folders:
            yield f"{path!r}: is a file and a folder at once; rename one of them"


def _parents(path: str) -> Iterator[str]:
    while (path := path.rpartition("/")[0]) != "":
        yield path


def _parts(path: str) -> tuple[str, str, str]:
    """Split, class and file of a path below the prefix; the file is empty for a folder."""
    split, _, rest = path.partition("/")
    label, slash, name = rest.partition("/")
    if not slash:
        return split, "", label or split
    hidden = any(part.startswith(".") for part in (label, *name.split("/")))
    return split, "" if hidden else label, name if not hidden else ".hidden"


def same_for_a_person(labels: Iterable[str]) -> Iterator[str]:
    """Classes whose names differ by case, accents' encoding or blanks alone."""
    by_meaning: dict[str, set[str]] = {}
    for label in labels:
        meaning = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        by_meaning.setdefault(meaning, set()).add(label)
    for same in by_meaning.values():
        if len(same) > 1:
            spellings = " and ".join(ascii(label) for label in sorted(same))
            yield f"{spellings}: are one class for a person; give them one name"


def _incomplete_splits(counts: dict[str, Counter[str]]) -> Iterator[str]:
    yield from (f"{split}/: holds no images; add the split" for split in SPLITS if not counts[split])
    if len(counts["train"]) == 1:
        only = next(iter(counts["train"]))
        yield f"train/: {only!r} is its only class; a classifier needs at least two"


def _unknown_classes(counts: dict[str, Counter[str]]) -> Iterator[str]:
    for split in ("valid", "test"):
        for label in sorted(counts[split].keys() - counts["train"].keys()):
            yield f"{split}/{label}/: the class is absent from train/; add it there or delete it here"


def fewest_images(limits: Dataset) -> dict[str, int]:
    """Fewest images of a class, by split."""
    return {
        "train": limits.min_train_images,
        "valid": limits.min_valid_images,
        "test": limits.min_test_images,
    }


def _too_few(counts: dict[str, Counter[str]], limits: Dataset) -> Iterator[str]:
    least = fewest_images(limits)
    for split in SPLITS:
        for label in sorted(counts["train"]):
            if counts[split] and (number := counts[split][label]) < least[split]:
                yield f"{split}/{label}/: {number} images, at least {least[split]} are needed; add some"
