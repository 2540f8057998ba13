"""The data set as S3 lists it: which objects are its pictures, and whether splits and classes are whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retraining.config.sections import Dataset

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Picture:
    """An object of the data set. `path` is `<split>/<class>/<file>`, its key below the data set's prefix."""

    path: str
    split: str
    label: str
    etag: str
    size: int

    @property
    def version(self) -> tuple[str, int]:
        """ETag and size: while they stay, so does the content, under this key or another."""
        return self.etag, self.size


@dataclass(frozen=True)
class Listing:
    """The pictures in the order of their keys, folders of a class without any, and keys that are not used."""

    pictures: list[Picture]
    empty: list[str]
    unused: list[str]

    def counts(self) -> dict[str, Counter[str]]:
        """Pictures by split and class."""
        counted: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        for picture in self.pictures:
            counted[picture.split][picture.label] += 1
        return counted


def list_pictures(s3: S3Client, bucket: str, prefix: str) -> Listing:
    """Read the list page by page (1,000 objects each).

    Hidden files do not count, as in the training script; what lies outside the class folders is not used.
    """
    return _sorted_out(_objects(s3, bucket, prefix), prefix)


def structure_problems(listing: Listing, counts: dict[str, Counter[str]], limits: Dataset) -> list[str]:
    """What is wrong with splits, classes and their sizes, and how to put it right; one line each."""
    problems = [f"{folder}: is empty; add pictures or delete the folder" for folder in listing.empty]
    return [*problems, *_strangers(counts), *_too_few(counts, limits)]


def _objects(s3: S3Client, bucket: str, prefix: str) -> Iterator[ObjectTypeDef]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/" if prefix else "")
    for page in pages:
        yield from page.get("Contents", [])


def _sorted_out(objects: Iterable[ObjectTypeDef], prefix: str) -> Listing:
    pictures: list[Picture] = []
    folders: set[tuple[str, str]] = set()
    unused: list[str] = []
    for entry in objects:
        path = entry["Key"].removeprefix(prefix).lstrip("/")
        split, label, name = _parts(path)
        if split in SPLITS and label and name:
            pictures.append(Picture(path, split, label, entry["ETag"].strip('"'), entry["Size"]))
        elif split in SPLITS and path.endswith("/"):
            folders.add((split, label))
        elif not name.startswith("."):
            unused.append(path)
    filled = {(picture.split, picture.label) for picture in pictures}
    empty = sorted(f"{split}/{label}/" for split, label in folders - filled if label)
    return Listing(pictures, empty, unused)


def _parts(path: str) -> tuple[str, str, str]:
    """Split, class and file of a path below the prefix; the file is empty for a folder."""
    split, _, rest = path.partition("/")
    label, slash, name = rest.partition("/")
    if not slash:
        return split, "", label or split
    hidden = any(part.startswith(".") for part in (label, *name.split("/")))
    return split, "" if hidden else label, name if not hidden else ".hidden"


def _strangers(counts: dict[str, Counter[str]]) -> Iterator[str]:
    yield from (f"{split}/: holds no picture; add the split" for split in SPLITS if not counts[split])
    for split in ("valid", "test"):
        for label in sorted(counts[split].keys() - counts["train"].keys()):
            yield f"{split}/{label}/: the class is absent from train/; add it there or delete it here"
    if len(counts["train"]) == 1:
        only = next(iter(counts["train"]))
        yield f"train/: holds the one class {only!r}; a classifier needs two"


def _too_few(counts: dict[str, Counter[str]], limits: Dataset) -> Iterator[str]:
    least = {
        "train": limits.min_train_images,
        "valid": limits.min_valid_images,
        "test": limits.min_test_images,
    }
    for split in SPLITS:
        for label in sorted(counts["train"]):
            if counts[split] and (number := counts[split][label]) < least[split]:
                yield f"{split}/{label}/: {number} pictures, at least {least[split]} are needed; add some"
