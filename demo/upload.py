"""Puts the run's input into S3: the bucket, the role, the dataset and the starting weights.

A prefix is made to hold what its folder holds: what is there already (by size and ETag) is skipped, and what
the folder does not have is removed, so that one dataset never mixes with the last one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.aws import Aws
from demo.settings import ROLE, DemoError

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

SPLITS = ("train", "valid", "test")
THREADS = 8
SHOWN = 3  # of the objects that are removed
DELETE_BATCH = 1000  # S3's limit for one DeleteObjects
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Synced:
    """What a prefix took: how many files went up, were there already, and were removed."""

    uploaded: int
    present: int
    removed: int


def create_bucket_and_role(aws: Aws) -> None:
    """The two things that an AWS account would have before a first run."""
    aws.s3.create_bucket(Bucket=aws.bucket)
    with suppress(aws.iam.exceptions.EntityAlreadyExistsException):
        aws.iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST))


def dataset_files(folder: Path) -> dict[str, Path]:
    """Every file of the dataset by its path below the folder; DemoError where it is no dataset."""
    missing = [split for split in SPLITS if not (folder / split).is_dir()]
    if missing:
        raise DemoError(
            f"DATA={folder} has no folder {', '.join(missing)}: a dataset has train/, valid/ and test/, "
            f"each with one folder of images for every class. Other layouts become one by: make dataset "
            f"DATA={folder}"
        )
    files = {
        path.relative_to(folder).as_posix(): path
        for split in SPLITS
        for path in sorted(_below(folder / split))
        if not path.name.startswith(".")
    }
    if not files:
        raise DemoError(f"DATA={folder} has no image: nothing is put into S3, and nothing removed from it")
    return files


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links to folders but not around in circles."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)  # noqa: PTH116 - of os.walk's own text
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (path for name in names if (path := Path(parent, name)).is_file())


def stored(aws: Aws, prefix: str) -> dict[str, tuple[int, str]]:
    """Size and ETag of every object below the prefix, by its key without the prefix."""
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=aws.bucket, Prefix=prefix)
    return {
        entry["Key"].removeprefix(prefix): (entry["Size"], entry["ETag"].strip('"'))
        for page in pages
        for entry in page.get("Contents", [])
    }


def same(path: Path, stored_object: tuple[int, str] | None) -> bool:
    """Whether the file is the object; the ETag of an object put in one piece is its MD5."""
    if stored_object is None or stored_object[0] != path.stat().st_size:
        return False
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            == stored_object[1]
        )


def sync(
    aws: Aws,
    files: Mapping[str, Path],
    prefix: str,
    progress: Progress,
    say: Callable[[str], object] = lambda _text: None,
) -> Synced:
    """Make the prefix (with its trailing slash) hold exactly these files; `say` what is removed, first."""
    there = stored(aws, prefix)
    stale = sorted(there.keys() - files.keys())
    if stale:
        shown = ", ".join(stale[:SHOWN]) + (", ..." if len(stale) > SHOWN else "")
        say(f"  removing {len(stale)} of {len(there)} objects below s3://{aws.bucket}/{prefix}: {shown}")

    def put(item: tuple[str, Path]) -> bool:
        name, path = item
        if same(path, there.get(name)):
            return False
        with path.open("rb") as body:
            aws.s3.put_object(Bucket=aws.bucket, Key=prefix + name, Body=body)
        return True

    uploaded = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for done, sent in enumerate(pool.map(put, files.items()), start=1):
            uploaded += sent
            progress(done, len(files))
    for start in range(0, len(stale), DELETE_BATCH):
        keys: list[ObjectIdentifierTypeDef] = [
            {"Key": prefix + name} for name in stale[start : start + DELETE_BATCH]
        ]
        aws.s3.delete_objects(Bucket=aws.bucket, Delete={"Objects": keys, "Quiet": True})
    return Synced(uploaded, len(files) - uploaded, len(stale))


def put_dataset(
    aws: Aws, folder: Path, prefix: str, progress: Progress, say: Callable[[str], object] = print
) -> Synced:
    """Put a dataset under a prefix (without its last slash), in the place of what is there."""
    return sync(aws, dataset_files(folder), f"{prefix}/", progress, say)


def put_weights(aws: Aws, weights: Path | None, arch: str, progress: Progress) -> Synced:
    """The weights as the only object of their prefix; without weights the prefix is emptied."""
    if weights is not None and not weights.is_file():
        raise DemoError(f"WEIGHTS={weights} is no file: give one .pth or .safetensors file")
    files = {weights.name: weights} if weights else {}
    return sync(aws, files, f"pretrained/{arch}/", progress)
