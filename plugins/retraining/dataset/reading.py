"""Reading the pictures that are new, many at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from retraining.dataset.images import Look, look_at
from retraining.dataset.listing import Picture
from retraining.errors import DatasetError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

Version = tuple[str, int]

_THREADS = 16
_BATCH = 1000
_PROGRESS_SECONDS = 10.0
_MAX_BYTES = 256 * 1024 * 1024  # what MAX_PIXELS need uncompressed, in four channels


@dataclass
class _Progress:
    """Says every ten seconds how far reading is."""

    total: int
    pictures: int = 0
    size: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def add(self, size: int) -> None:
        self.pictures += 1
        self.size += size
        if time.monotonic() - self.said >= _PROGRESS_SECONDS:
            self.say()

    def say(self) -> None:
        self.said = time.monotonic()
        rate = self.size / 1e6 / max(self.said - self.started, 1e-3)
        log.info("%d of %d new pictures read, %.1f MB/s", self.pictures, self.total, rate)


def read_new(
    s3: S3Client, bucket: str, prefix: str, pictures: list[Picture], known: Mapping[Version, Look]
) -> Iterator[tuple[Version, Look]]:
    """Read every content that is not known, once, however many keys it has.

    Raises DatasetError where the credentials may not read the objects.
    """
    new: dict[Version, Picture] = {}
    for picture in pictures:
        if picture.version not in known:
            new.setdefault(picture.version, picture)
    log.info("%d of %d pictures are known from an earlier check", len(pictures) - len(new), len(pictures))
    progress, remaining = _Progress(len(new)), iter(new.values())
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="picture") as pool:
        while batch := list(islice(remaining, _BATCH)):
            started = {pool.submit(_read, s3, bucket, prefix, picture): picture for picture in batch}
            try:
                for done in as_completed(started):
                    picture = started[done]
                    yield picture.version, done.result()
                    progress.add(picture.size)
            finally:
                for waiting in started:
                    waiting.cancel()
    if new:
        progress.say()


def _read(s3: S3Client, bucket: str, prefix: str, picture: Picture) -> Look:
    from botocore.exceptions import ClientError

    if picture.size > _MAX_BYTES:
        problem = f"has {picture.size:,} bytes, at most {_MAX_BYTES:,} are accepted"
        return Look("", problem=problem)
    key = f"{prefix}/{picture.path}".lstrip("/")
    try:
        return look_at(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in {"NoSuchKey", "404"}:
            return Look("", problem="was deleted while the check ran; start the run again")
        if code == "InvalidObjectState":
            return Look("", problem="is in an archive storage class; restore it")
        if code in {"AccessDenied", "403"}:
            raise DatasetError(
                f"The connection's credentials may not read s3://{bucket}/{key}. Grant s3:GetObject, and "
                "kms:Decrypt where the bucket is encrypted with a key of yours."
            ) from error
        raise
