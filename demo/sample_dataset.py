"""Draws a dataset of invented dog breeds, so that the demonstration needs no download.

Every image is drawn from its own random generator, seeded by the dataset's seed and the image's place in it:
any image can be drawn alone, and the same seed gives the same bytes (for one version of Pillow). A breed is a
coat, a build, ears and a tail; what varies within it is pose, size, direction, shade, scene, light and noise.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

VERSION = 1  # of the drawings: raise it with every change that alters an image
CANVAS = 288  # px; drawn at three times the final size and reduced, which smooths the edges
DONE = ".complete.json"


@dataclass(frozen=True)
class Breed:
    """Lengths are in px on a canvas of 288; `reach` is the part of the canvas that the dog fills."""

    name: str
    shade: Colour
    markings: Colour
    pattern: Literal["bib", "plain", "spots", "curls", "stripes"]
    ears: Literal["pointed", "folded", "hanging"]
    tail: Literal["bushy", "thin", "curled", "pompon"]
    body: tuple[int, int]
    legs: int
    head: int
    muzzle: int
    reach: float


BREEDS = (
    Breed(
        "001.Amber_foxling",
        shade=(224, 122, 38),
        markings=(250, 240, 222),
        pattern="bib",
        ears="pointed",
        tail="bushy",
        body=(104, 56),
        legs=42,
        head=27,
        muzzle=26,
        reach=0.86,
    ),
    Breed(
        "002.Inkwell_mastiff",
        shade=(42, 38, 44),
        markings=(104, 70, 48),
        pattern="plain",
        ears="folded",
        tail="thin",
        body=(136, 86),
        legs=54,
        head=40,
        muzzle=24,
        reach=1.0,
    ),
    Breed(
        "003.Brook_speckle",
        shade=(246, 244, 240),
        markings=(48, 42, 42),
        pattern="spots",
        ears="hanging",
        tail="thin",
        body=(126, 58),
        legs=66,
        head=29,
        muzzle=30,
        reach=0.96,
    ),
    Breed(
        "004.Russet_curl",
        shade=(138, 56, 48),
        markings=(188, 104, 92),
        pattern="curls",
        ears="hanging",
        tail="pompon",
        body=(94, 66),
        legs=46,
        head=32,
        muzzle=18,
        reach=0.84,
    ),
    Breed(
        "005.Slate_brindle",
        shade=(98, 130, 178),
        markings=(44, 54, 88),
        pattern="stripes",
        ears="pointed",
        tail="curled",
        body=(122, 62),
        legs=56,
        head=31,
        muzzle=24,
        reach=0.92,
    ),
)


@dataclass(frozen=True)
class Plan:
    """How many images of each breed go into each split, their side in px, and the seed."""

    train: int = 60
    valid: int = 20
    test: int = 20
    side: int = 96
    seed: int = 7

    def splits(self) -> Mapping[str, int]:
        return {"train": self.train, "valid": self.valid, "test": self.test}


def shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def ellipse(draw: ImageDraw.ImageDraw, centre: Point, width: float, height: float, fill: Colour) -> None:
    x, y = centre
    draw.ellipse((x - width / 2, y - height / 2, x + width / 2, y + height / 2), fill=fill)


def limb(draw: ImageDraw.ImageDraw, points: list[Point], width: float, fill: Colour) -> None:
    """A line with round joints and ends."""
    draw.line(points, fill=fill, width=round(width), joint="curve")
    for point in points:
        ellipse(draw, point, width, width, fill)


def scene(rng: np.random.Generator) -> Image.Image:
    """A meadow, beach, snowfield or room: two graded areas, and a few things standing about."""
    skies: list[Colour] = [
        (150, 196, 232),
        (236, 206, 170),
        (196, 204, 214),
        (214, 200, 222),
        (176, 214, 206),
    ]
    grounds: list[Colour] = [
        (104, 152, 78),
        (214, 190, 140),
        (232, 236, 242),
        (152, 112, 82),
        (132, 140, 134),
    ]
    sky = shaded(skies[rng.integers(len(skies))], rng.uniform(0.8, 1.08))
    ground = shaded(grounds[rng.integers(len(grounds))], rng.uniform(0.75, 1.05))
    horizon = CANVAS * rng.uniform(0.45, 0.72)
    rows = np.arange(CANVAS)[:, None]
    grade = 1.0 + 0.22 * (rows / CANVAS - 0.5)
    pixels = np.where(rows < horizon, grade, 2.0 - grade)[..., None] * np.where(
        (rows < horizon)[..., None], np.array(sky), np.array(ground)
    )
    image = Image.fromarray(np.broadcast_to(pixels, (CANVAS, CANVAS, 3)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 4)):
        x, height = rng.uniform(0, CANVAS), rng.uniform(30, 110)
        if rng.random() < 0.5:
            limb(draw, [(x, horizon), (x, horizon - height * 0.6)], 9, (104, 82, 62))
            ellipse(
                draw,
                (x, horizon - height * 0.8),
                height * 0.7,
                height * 0.8,
                shaded((116, 144, 110), rng.uniform(0.7, 1.2)),
            )
        else:
            box = shaded((170, 150, 140), rng.uniform(0.6, 1.3))
            draw.rectangle((x, horizon - height * 0.6, x + height * 0.5, horizon + 4), fill=box)
    for _ in range(rng.integers(0, 24)):
        spot = (rng.uniform(0, CANVAS), rng.uniform(horizon, CANVAS))
        ellipse(draw, spot, rng.uniform(2, 12), rng.uniform(2, 6), shaded(ground, rng.uniform(0.8, 1.15)))
    return image


def draw_pattern(draw: ImageDraw.ImageDraw, breed: Breed, centre: Point, rng: np.random.Generator) -> None:
    """The coat's markings over the whole trunk; what falls outside the dog is cut off later."""
    x, y = centre
    length, depth = breed.body[0] * 1.7, breed.body[1] * 2.6
    if breed.pattern == "bib":
        ellipse(
            draw, (x + breed.body[0] * 0.46, y + 4), breed.body[0] * 0.38, breed.body[1] * 0.9, breed.markings
        )
        ellipse(draw, (x, y + breed.body[1] * 0.46), breed.body[0] * 0.8, breed.body[1] * 0.4, breed.markings)
    elif breed.pattern == "spots":
        for _ in range(int(rng.integers(34, 48))):
            spot = (x + rng.uniform(-0.5, 0.75) * length, y + rng.uniform(-0.6, 0.5) * depth)
            ellipse(draw, spot, rng.uniform(6, 15), rng.uniform(6, 13), breed.markings)
    elif breed.pattern == "stripes":
        slant = rng.uniform(-10, 10)
        for left in np.arange(x - length / 2, x + length / 2, rng.uniform(13, 17)):
            points = [(left, y - depth / 2), (left + slant, y), (left + rng.uniform(-5, 5), y + depth / 2)]
            limb(draw, points, rng.uniform(3.5, 6), breed.markings)
    elif breed.pattern == "curls":
        for _ in range(150):
            a, b = x + rng.uniform(-0.5, 0.6) * length, y + rng.uniform(-0.7, 0.5) * depth
            radius = rng.uniform(4, 7)
            draw.arc((a - radius, b - radius, a + radius, b + radius), 20, 300, fill=breed.markings, width=3)
    else:
        ellipse(draw, (x + breed.body[0] * 0.45, y + breed.body[1] * 0.3), 26, 20, breed.markings)


def draw_tail(draw: ImageDraw.ImageDraw, breed: Breed, root: Point, coat: Colour, lift: float) -> None:
    x, y = root
    if breed.tail == "curled":
        draw.arc((x - 34, y - 46, x + 8, y), 60, 350, fill=coat, width=11)
        return
    tip = (x - 44, y - 40 * lift)
    limb(draw, [root, (x - 22, y - 10 * lift), tip], 20 if breed.tail == "bushy" else 9, coat)
    if breed.tail == "bushy":
        ellipse(draw, tip, 24, 22, breed.markings)
    elif breed.tail == "pompon":
        ellipse(draw, tip, 32, 32, coat)


def draw_head(
    draw: ImageDraw.ImageDraw, breed: Breed, centre: Point, coat: Colour, rng: np.random.Generator
) -> None:
    x, y = centre
    size, dark = breed.head, shaded(coat, 0.72)
    if breed.pattern == "curls":
        for angle in np.linspace(0, 2 * math.pi, 9):
            ellipse(
                draw, (x + 0.75 * size * math.cos(angle), y + 0.75 * size * math.sin(angle)), size, size, coat
            )
    ellipse(draw, centre, 2 * size, 1.9 * size, coat)
    snout = breed.markings if breed.pattern in {"bib", "plain"} else coat
    limb(
        draw,
        [(x + size * 0.5, y + size * 0.3), (x + size * 0.6 + breed.muzzle, y + size * 0.4)],
        size * 0.8,
        snout,
    )
    ellipse(draw, (x + size * 0.8 + breed.muzzle, y + size * 0.2), 12, 10, (24, 20, 22))
    ear_tone = breed.markings if breed.pattern == "spots" else dark
    if breed.ears == "pointed":
        for left in (-0.9, -0.1):
            tip = (x + (left + 0.35) * size + rng.uniform(-4, 4), y - 2.1 * size)
            draw.polygon(
                [(x + left * size, y - 0.5 * size), tip, (x + (left + 0.8) * size, y - 0.7 * size)],
                fill=ear_tone,
            )
    elif breed.ears == "folded":
        draw.polygon(
            [(x - 0.7 * size, y - 0.9 * size), (x + 0.1 * size, y - 0.9 * size), (x - 0.7 * size, y)],
            fill=ear_tone,
        )
    else:
        limb(
            draw, [(x - 0.5 * size, y - 0.4 * size), (x - 0.7 * size, y + 1.1 * size)], size * 0.75, ear_tone
        )
    ellipse(draw, (x + size * 0.35, y - size * 0.2), 11, 11, (250, 250, 246))
    ellipse(draw, (x + size * 0.4, y - size * 0.18), 7, 8, (30, 22, 20))


def draw_dog(breed: Breed, rng: np.random.Generator) -> Image.Image:
    """The dog alone on a transparent canvas, looking right: standing, trotting, or sitting."""
    coat = shaded(breed.shade, rng.uniform(0.85, 1.12))
    layer = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    length, depth = breed.body
    x, y = CANVAS * 0.46, CANVAS * 0.55
    sitting = rng.random() < 0.3
    ground = y + depth * 0.4 + breed.legs
    front = (x + length * 0.36, y - depth * (0.45 if sitting else 0.05))
    rear = (x - length * 0.36, y + (breed.legs * 0.6 if sitting else 0.0))
    stride = rng.uniform(-1, 1) * breed.legs * 0.35
    width = max(12.0, depth * 0.24)
    for sign, tone in ((-1, shaded(coat, 0.72)), (1, coat)):
        limb(draw, [front, (front[0] + sign * stride, ground)], width, tone)
        foot = (rear[0] + length * 0.3, ground) if sitting else (rear[0] - sign * stride, ground)
        limb(draw, [rear, foot], width, tone)
    draw_tail(draw, breed, (rear[0] - length * 0.12, rear[1] - depth * 0.2), coat, rng.uniform(0.3, 1.2))
    head = (front[0] + length * 0.22, front[1] - depth * 0.45 - breed.head * rng.uniform(0.5, 1.1))
    limb(draw, [front, head], breed.head * 1.1, coat)
    ellipse(draw, rear, depth * 0.98, depth * 0.98, coat)
    limb(draw, [rear, front], depth * 0.86, coat)
    ellipse(draw, front, depth, depth, coat)
    markings = layer.copy()
    draw_pattern(ImageDraw.Draw(markings), breed, (x, y), rng)
    markings.putalpha(ImageChops.darker(markings.getchannel("A"), layer.getchannel("A")))
    draw_head(ImageDraw.Draw(markings), breed, head, coat, rng)
    return markings


def placed(dog: Image.Image, reach: float, rng: np.random.Generator) -> Image.Image:
    """The dog tilted and turned, filling about the part `reach` of the canvas, somewhere within it."""
    if rng.random() < 0.5:
        dog = dog.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    dog = dog.rotate(rng.uniform(-9, 9), resample=Image.Resampling.BILINEAR)
    dog = dog.crop(dog.getbbox())
    scale = CANVAS * reach * rng.uniform(0.9, 1.0) / max(dog.size)
    width, height = round(dog.width * scale), round(dog.height * scale)
    layer = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    left, top = round(rng.uniform(0, CANVAS - width)), round((CANVAS - height) * rng.uniform(0.4, 0.9))
    layer.paste(dog.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return layer


def lit(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rng: np.random.Generator) -> Image.Image:
    """Under a light from one side, with a colour cast and the camera's noise."""
    side = pixels.shape[0]
    angle = rng.uniform(0, 2 * math.pi)
    across = (np.arange(side) / side - 0.5) * 2
    slope = math.cos(angle) * across[None, :] + math.sin(angle) * across[:, None]
    light = rng.uniform(0.78, 1.16) + rng.uniform(0, 0.16) * slope
    cast = rng.uniform(0.94, 1.06, size=3)
    noise = rng.normal(0, rng.uniform(2, 7), size=pixels.shape)
    return Image.fromarray((pixels * light[..., None] * cast + noise).clip(0, 255).astype(np.uint8))


def draw_image(breed: Breed, side: int, rng: np.random.Generator) -> Image.Image:
    image = scene(rng)
    dog = placed(draw_dog(breed, rng), breed.reach, rng)
    image.paste(dog, mask=dog.getchannel("A"))
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    return lit(np.asarray(small, dtype=np.float64), rng)


def images(plan: Plan) -> Iterator[tuple[Path, Image.Image]]:
    """Every image with its path below the dataset's folder: split/breed/file."""
    for split_index, (split, count) in enumerate(plan.splits().items()):
        for breed_index, breed in enumerate(BREEDS):
            for index in range(count):
                rng = np.random.default_rng([plan.seed, split_index, breed_index, index])
                name = f"{breed.name.split('.')[1]}_{index:04d}.jpg"
                yield Path(split) / breed.name / name, draw_image(breed, plan.side, rng)


def fingerprint(plan: Plan) -> str:
    described = json.dumps([VERSION, asdict(plan), [asdict(breed) for breed in BREEDS]])
    return hashlib.sha256(described.encode()).hexdigest()


def draw_dataset(folder: Path, plan: Plan) -> bool:
    """Draw the dataset into `folder` unless it lies there already; whether it was drawn now."""
    marker = folder / DONE
    wanted = fingerprint(plan)
    if marker.exists() and marker.read_text() == wanted:
        return False
    if folder.exists():
        shutil.rmtree(folder)
    for path, image in images(plan):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image.save(target, quality=90)
    marker.write_text(wanted)
    return True
