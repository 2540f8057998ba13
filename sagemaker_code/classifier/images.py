"""Images as tensors: the same decoding and scaling for training, evaluation and inference.

Every image passes the same stages: its header is checked (`open_image`), it is decoded to RGB at a working
size (`decode`), one square is cut from it (`center_crop` or `random_crop`) and becomes a uint8 tensor
(`to_tensor`), and a batch is normalised (`normalise`). Training differs from evaluation and inference in the
crop only.
"""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from classifier.errors import ImageValueError

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean per channel, in [0, 1]: the input that torchvision's weights expect."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation per channel, in [0, 1]."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's other readers are disabled, because some run external programs. Its JPEG reader also reads MPO."""
MAX_PIXELS = 64_000_000
"""Largest image accepted, by its header: 8,000 by 8,000 pixels take 256 MB when decoded."""
CROP_FRACTION = 0.875
"""Part of the shorter side that a center crop keeps; 224 of 256 in torchvision's reference recipe."""
MAX_ASPECT = 2.0
"""Largest ratio of the longer to the shorter side; what is beyond it is cut off equally at both ends."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Read and check an image's header. Raises ImageValueError for its format or number of pixels."""
    try:
        image = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageValueError(f"has too many pixels; at most {MAX_PIXELS:,} are accepted") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageValueError(f"is not an image in one of the formats {', '.join(FORMATS)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageValueError(f"has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    return image


def decode(image: Image.Image, image_size: int) -> Image.Image:
    """Decode to upright RGB with a shorter side of `working_side` pixels. Raises ImageValueError."""
    side = working_side(image_size)
    try:
        image.draft("RGB", (2 * side, 2 * side))  # JPEG: decode at 1/2, 1/4 or 1/8, still above the target
        image.load()
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        raise ImageValueError(f"is damaged or cut off ({error})") from error
    rgb = to_rgb(upright)
    size = decoded_size(rgb.size, image_size)
    return rgb.resize(size, Image.Resampling.BILINEAR, box=_kept_box(rgb.size), reducing_gap=3.0)


def decoded_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Width and height that `decode` gives an image of `size` (width, height)."""
    left, top, right, bottom = _kept_box(size)
    scale = working_side(image_size) / min(right - left, bottom - top)
    return round((right - left) * scale), round((bottom - top) * scale)


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


def working_side(image_size: int) -> int:
    """Shorter side, in pixels, of the decoded image from which crops of `image_size` pixels are taken."""
    return round(image_size / CROP_FRACTION)


def center_crop(image: Image.Image, image_size: int) -> Image.Image:
    """The central square of `image_size` pixels, for evaluation and inference."""
    left, top = (image.width - image_size) // 2, (image.height - image_size) // 2
    return image.crop((left, top, left + image_size, top + image_size))


def random_crop(image: Image.Image, image_size: int, random: np.random.Generator) -> Image.Image:
    """A random part of 35 to 100 % of the area, scaled to a square, mirrored half of the time."""
    area = image.width * image.height * random.uniform(0.35, 1.0)
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(image.width, math.sqrt(area * aspect))
    height = min(image.height, math.sqrt(area / aspect))
    left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    crop = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(crop) if random.random() < 0.5 else crop


def to_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as uint8, shape (3, height, width)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalise(batch: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) as float32, normalised by ImageNet's statistics, on the same device."""
    mean = torch.tensor(MEAN, device=batch.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=batch.device).view(1, 3, 1, 1)
    return ((batch.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _kept_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of an image that is kept; see MAX_ASPECT."""
    width, height = size
    kept_width = min(width, round(height * MAX_ASPECT))
    kept_height = min(height, round(width * MAX_ASPECT))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height
