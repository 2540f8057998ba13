"""What the image files hold: whether each can be decoded, and how its copies are recognised later.

Of each image 296 bytes are kept: a perceptual hash, which finds candidates for duplicates, and a signature,
which confirms them (`duplicates.py`). With these, the file need not be read again.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import imagehash
import numpy as np
from PIL import Image

from retraining.aws.responses import is_missing
from retraining.aws.s3 import content_of
from retraining.dataset.listing import DatasetImage, Version
from retraining.dataset.reader import image_reader
from retraining.errors import DatasetError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

LUMA_SIDE = 16
CHROMA_SIDE = 4
SIGNATURE_BYTES = LUMA_SIDE**2 + 2 * CHROMA_SIDE**2
_REDUCED_SIDE = 64
_THREADS = 16
_BATCH = 1000
_PROGRESS_SECONDS = 10.0
_MAX_BYTES = 256 * 1024 * 1024  # the most pixels that the reader takes, uncompressed, in four channels


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image file's content.

    `sha256` is the digest of the content, empty if the file could not be read. `phash` is the 64-bit DCT
    hash in hexadecimal; `signature` holds 16 x 16 bytes of luma, then 4 x 4 of Cb and of Cr. If `problem`
    says what is wrong with the file, both are empty and width and height are 0.
    """

    sha256: str
    phash: str = ""
    signature: bytes = b""
    width: int = 0
    height: int = 0
    problem: str | None = None


InspectedImage = tuple[DatasetImage, ImageFacts]


def inspect_image(content: bytes) -> ImageFacts:
    """Decode an image file as training, evaluation and endpoint do.

    A JPEG is decoded at a reduced scale, which still reads the whole file, so truncation is noticed.
    """
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return ImageFacts(digest, problem="is empty")
    reader = image_reader()
    try:
        with reader.open_image(io.BytesIO(content)) as image:
            width, height = image.size
            reduced = _reduced(reader.upright(image, _REDUCED_SIDE))
    except ValueError as error:  # the reader's own, in a sentence
        return ImageFacts(digest, problem=str(error))
    return ImageFacts(digest, str(imagehash.phash(reduced)), _signature(reduced), width, height)


def thumbnail(content: bytes, side: int) -> bytes:
    """The image as a JPEG of at most `side` x `side` pixels. Raises ValueError for what cannot be read."""
    reader = image_reader()
    with reader.open_image(io.BytesIO(content)) as image:
        small = reader.to_rgb(reader.upright(image, side))
        small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def inspect_new(
    s3: S3Client, bucket: str, prefix: str, images: list[DatasetImage], known: Mapping[Version, ImageFacts]
) -> Iterator[tuple[Version, ImageFacts]]:
    """Read and inspect every content that is not known, once, however many keys it has.

    Raises DatasetError where the credentials may not read the objects.
    """
    new: dict[Version, DatasetImage] = {}
    for image in images:
        if image.version not in known:
            new.setdefault(image.version, image)
    log.info("%d of %d images are known from an earlier check", len(images) - len(new), len(images))
    progress, remaining = _Progress(len(new)), iter(new.values())
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="image") as pool:
        while batch := list(islice(remaining, _BATCH)):
            started = {pool.submit(_inspect, s3, bucket, prefix, image): image for image in batch}
            try:
                for done in as_completed(started):
                    image = started[done]
                    yield image.version, done.result()
                    progress.add(image.size)
            finally:
                for waiting in started:
                    waiting.cancel()
    if new:
        progress.show()


@dataclass
class _Progress:
    """Logs every ten seconds how many of the `total` images have been read."""

    total: int
    images: int = 0
    size: int = 0
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    def add(self, size: int) -> None:
        self.images += 1
        self.size += size
        if time.monotonic() - self.shown >= _PROGRESS_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        rate = self.size / 1e6 / max(self.shown - self.started, 1e-3)
        log.info("%d of %d new images read, %.1f MB/s", self.images, self.total, rate)


def _inspect(s3: S3Client, bucket: str, prefix: str, image: DatasetImage) -> ImageFacts:
    from botocore.exceptions import ClientError

    if image.size > _MAX_BYTES:
        return ImageFacts("", problem=f"has {image.size:,} bytes, at most {_MAX_BYTES:,} are accepted")
    key = f"{prefix}/{image.path}".lstrip("/")
    try:
        return inspect_image(content_of(s3, bucket, key))
    except ClientError as error:
        if is_missing(error):
            return ImageFacts("", problem="was deleted during the check; start the run again")
        code = error.response["Error"]["Code"]
        if code == "InvalidObjectState":
            return ImageFacts("", problem="is in an archive storage class; restore it")
        if code in {"AccessDenied", "403"}:
            raise DatasetError(
                f"The connection's credentials may not read s3://{bucket}/{key}. Grant s3:GetObject, and "
                "kms:Decrypt if the bucket is encrypted with your own key."
            ) from error
        raise


def _reduced(image: Image.Image) -> Image.Image:
    """The image resized to 64 x 64 RGB pixels; converting it to RGB first would take more memory."""
    side = (_REDUCED_SIDE, _REDUCED_SIDE)
    if image.mode in {"L", "RGB", "CMYK"}:
        return image.resize(side, Image.Resampling.BOX).convert("RGB")
    return image_reader().to_rgb(image).resize(side, Image.Resampling.BOX)


def _signature(reduced: Image.Image) -> bytes:
    luma, blue, red = reduced.convert("YCbCr").split()
    sides = ((luma, LUMA_SIDE), (blue, CHROMA_SIDE), (red, CHROMA_SIDE))
    return b"".join(
        np.asarray(channel.resize((side, side), Image.Resampling.BOX), dtype=np.uint8).tobytes()
        for channel, side in sides
    )
