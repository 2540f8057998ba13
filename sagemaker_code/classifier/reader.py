"""The one reader of image files: the dataset's check, training, evaluation and endpoints decode with it.

Imports Pillow and NumPy alone: Airflow loads this file from the code that a run packs, so that the check
finds what training would stop at, and nothing else.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's other readers are disabled, because some run external programs. Its JPEG reader also reads MPO."""
SCALED_FORMATS = ("JPEG", "MPO")
"""Decoded at a part of their size, so that the largest image accepted takes a fraction of a second."""
MAX_PIXELS = 64_000_000
"""Largest image accepted, by its header: 8,000 by 8,000 pixels take 256 MB when decoded."""
MIN_SIDE = 8
"""Shorter side, in pixels, below which an image shows nothing: a JPEG's block has as many."""
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are damaged or no images."""

_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_END = b"\xff\xd9"
_MOST_WITHOUT_END = 25_000_000  # pixels; such a file is decoded in full, more than once
_FILLERS = (b"\0" * 512, b"\xa5" * 512, b"\x5a" * 512)  # of other bits from the first on, and no marker


SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".webp", ""),
}
"""Of files that are images, or may be. Others that lie beside images, such as Thumbs.db, are ignored."""


class ImageValueError(ValueError):
    """An image cannot be decoded; the message is a predicate without the name of the image."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Read and check an image's header. Raises ImageValueError for its format or number of pixels."""
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageValueError(f"has too many pixels; at most {MAX_PIXELS:,} are accepted") from error
    except DAMAGED as error:
        raise ImageValueError(f"is not an image in one of the formats {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageValueError(f"has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    return image


def upright(image: Image.Image, side: int) -> Image.Image:
    """Decode and turn by EXIF's orientation. A JPEG may be smaller, with a shorter side of at least `side`.

    Raises ImageValueError for a damaged file. One that lacks only its end marker is whole.
    """
    try:
        image.draft("RGB", (side, side))  # JPEG: 1/2, 1/4 or 1/8
        image.load()
    except DAMAGED as error:
        whole = _without_end(image)
        if whole is None:
            raise ImageValueError(f"is damaged or cut off ({error})") from error
        image = whole
    turn = _TURNS.get(_orientation(image) or 0)
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16 bits are scaled down, transparency becomes white. Raises ImageValueError."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        sixteen_bit = np.asarray(image, dtype=np.int64).clip(0, 65_535)
        return Image.fromarray((sixteen_bit // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageValueError("has floating-point pixels; save it with 8 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageValueError(f"has the colour mode {image.mode}; save it as RGB") from error


def is_image_name(name: str) -> bool:
    """Whether a file in a class folder is taken for an image, by its name alone; hidden files are not."""
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def shows_nothing(image: Image.Image) -> str | None:
    """Why a decoded image cannot show anything, as a predicate: too few pixels, or wholly transparent."""
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        return f"has {width} x {height} pixels; {MIN_SIDE} are needed each way"
    if "A" in image.mode and image.getchannel("A").getextrema() == (0, 0):
        return "is transparent everywhere"
    return None


def _orientation(image: Image.Image) -> int | None:
    """EXIF's orientation tag, read alone: other tags of the block may be of any odd type or value."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except DAMAGED:
        return None
    return value if isinstance(value, int) else None


def _without_end(image: Image.Image) -> Image.Image | None:
    """A JPEG that lacks only its end marker, decoded at its full size; None for any other image.

    What comes between the last pixel and the marker is ignored. So if different fillers lead to the same
    pixels, every pixel is there; if pixels are missing, the fillers take their places.
    """
    file: BinaryIO | None = getattr(image, "fp", None)
    if image.format not in SCALED_FORMATS or file is None:
        return None
    file.seek(0)
    content = file.read().rstrip(b"\xff")
    if content.endswith(_JPEG_END):
        return None
    decoded = []
    for filler in _FILLERS:
        try:
            one = Image.open(io.BytesIO(content + filler + _JPEG_END), formats=FORMATS)
            if one.width * one.height > _MOST_WITHOUT_END:
                return None
            one.load()
        except DAMAGED:
            return None
        decoded.append(one)
    first, *others = decoded
    return first if all(one.tobytes() == first.tobytes() for one in others) else None
