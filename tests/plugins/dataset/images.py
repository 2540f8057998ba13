"""Images for tests of the dataset check: all different, and copies that differ a little."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

Change = Callable[[Image.Image], Image.Image]


def motif(number: int, side: int = 96) -> Image.Image:
    """Soft areas of colour, the same for the same number."""
    areas = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(areas).resize((side, side), Image.Resampling.BICUBIC)


def saved(image: Image.Image, format_: str = "JPEG", quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format_, quality=quality)
    return buffer.getvalue()


def photo(number: int) -> bytes:
    """A JPEG of the motif of this number."""
    return saved(motif(number))


def cropped(share: float) -> Change:
    """Crop by a share of the side, all round."""

    def crop(image: Image.Image) -> Image.Image:
        across, down = round(image.width * share), round(image.height * share)
        return image.crop((across, down, image.width - across, image.height - down))

    return crop


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "recompressed": lambda image: saved(image, quality=35),
    "another format": lambda image: saved(image, "PNG"),
    "half the size": lambda image: saved(image.resize((image.width // 2, image.height // 2))),
    "larger": lambda image: saved(image.resize((image.width * 3 // 2, image.height * 3 // 2))),
    "another aspect ratio": lambda image: saved(image.resize((image.width, image.height * 4 // 5))),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image.convert("RGB")).enhance(1.15)),
    "more contrast": lambda image: saved(ImageEnhance.Contrast(image.convert("RGB")).enhance(1.15)),
    "grey": lambda image: saved(image.convert("L")),
    "cropped": lambda image: saved(cropped(0.02)(image)),
}
"""Changes after which a copy still shows the same image."""


def sound(classes: tuple[str, ...] = ("001.Red", "002.Blue"), count: int = 3) -> dict[str, bytes]:
    """A valid dataset: `count` different images of every class in every split."""
    names = (
        f"{split}/{label}/{n}.jpg"
        for split in ("train", "valid", "test")
        for label in classes
        for n in range(count)
    )
    return {name: photo(number) for number, name in enumerate(names)}
