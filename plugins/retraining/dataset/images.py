"""One picture file: whether it can be decoded, and what of it is kept to recognise it again.

Of a picture's looks, 296 bytes are kept: a perceptual hash, by which look-alikes are searched, and a
signature, by which they are confirmed (`duplicates.py`). Neither needs the picture again.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000
LUMA_SIDE = 16
CHROMA_SIDE = 4
SIGNATURE_BYTES = LUMA_SIDE**2 + 2 * CHROMA_SIDE**2
_REDUCED_SIDE = 64

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on files that are broken, or no pictures at all."""


@dataclass(frozen=True, slots=True)
class Look:
    """What reading a picture file found.

    `sha256` is of the file's content, and empty where the file could not be read at all. `phash` is the DCT
    hash of 64 bits in hexadecimal; `signature` holds 16 x 16 bytes of luma, then 4 x 4 of Cb and of Cr. Both
    are empty, and the size is 0 x 0, where `problem` says what is wrong with the file.
    """

    sha256: str
    phash: str = ""
    signature: bytes = b""
    width: int = 0
    height: int = 0
    problem: str | None = None


def look_at(content: bytes) -> Look:
    """Decode a picture file; formats and size are those that training takes.

    A JPEG is decoded at a small scale, which reads all of it, so that a file that was cut off is noticed.
    """
    digest = hashlib.sha256(content).hexdigest()
    if not content:
        return Look(digest, problem="is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return Look(
                    digest, problem=f"has {width} x {height} pixels, at most {MAX_PIXELS:,} are accepted"
                )
            image.draft("RGB", (_REDUCED_SIDE, _REDUCED_SIDE))
            reduced = _reduced(image)
    except UnidentifiedImageError:
        return Look(digest, problem=f"is no image in one of the formats {', '.join(FORMATS)}")
    except DAMAGED as error:
        return Look(digest, problem=f"is damaged or cut off ({error})")
    return Look(digest, str(imagehash.phash(reduced)), _signature(reduced), width, height)


def thumbnail(content: bytes, side: int) -> bytes:
    """The picture as a JPEG that fits into `side` x `side` pixels. Raises one of DAMAGED."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.draft("RGB", (side, side))
        small = _eight_bits(image)
        small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _reduced(image: Image.Image) -> Image.Image:
    """The picture squeezed into 64 x 64 RGB pixels; converting it first would take more memory."""
    side = (_REDUCED_SIDE, _REDUCED_SIDE)
    if image.mode in {"L", "RGB", "CMYK"}:
        return image.resize(side, Image.Resampling.BOX).convert("RGB")
    return _eight_bits(image).resize(side, Image.Resampling.BOX)


def _eight_bits(image: Image.Image) -> Image.Image:
    """In RGB; 16-bit grey is scaled down, which Pillow's own conversion would clip to white."""
    if image.mode.startswith("I"):
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    return image.convert("RGB")


def _signature(reduced: Image.Image) -> bytes:
    luma, blue, red = reduced.convert("YCbCr").split()
    sides = ((luma, LUMA_SIDE), (blue, CHROMA_SIDE), (red, CHROMA_SIDE))
    return b"".join(
        np.asarray(channel.resize((side, side), Image.Resampling.BOX), dtype=np.uint8).tobytes()
        for channel, side in sides
    )
