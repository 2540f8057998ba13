"""Images as tensors: the same decoding and scaling for training, evaluation and inference.

Every image passes the same stages: its header is checked (`reader.open_image`), it is decoded to RGB at a
working size (`decode`), one square is cut from it (`center_crop` or `random_crop`) and becomes a uint8 tensor
(`to_tensor`), and a batch is normalised (`normalise`). Training differs from evaluation and inference in the
crop only.
"""

import math

import numpy as np
import torch
from PIL import Image, ImageOps

from classifier.reader import to_rgb, upright

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean per channel, in [0, 1]: the input that torchvision's weights expect."""
STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation per channel, in [0, 1]."""

CROP_FRACTION = 0.875
"""Part of the shorter side that a center crop keeps; 224 of 256 in torchvision's reference recipe."""
MAX_ASPECT = 2.0
"""Largest ratio of the longer to the shorter side; what is beyond it is cut off equally at both ends."""


def decode(image: Image.Image, image_size: int) -> Image.Image:
    """Decode to upright RGB with a shorter side of `working_side` pixels. Raises ImageValueError."""
    rgb = to_rgb(upright(image, 2 * working_side(image_size)))
    size = decoded_size(rgb.size, image_size)
    return rgb.resize(size, Image.Resampling.BILINEAR, box=_kept_box(rgb.size), reducing_gap=3.0)


def decoded_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Width and height that `decode` gives an image of `size` (width, height)."""
    left, top, right, bottom = _kept_box(size)
    scale = working_side(image_size) / min(right - left, bottom - top)
    return round((right - left) * scale), round((bottom - top) * scale)


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
