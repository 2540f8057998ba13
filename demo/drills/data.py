"""The drills' data set of drawn dogs, and what can be wrong with one.

Every variant has the same test pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from demo.sample_dataset import Plan, draw_dataset

LEAKED_SHARE = 0.2  # of the test pictures that leak into the training split
CUT_BYTES = 400  # of a damaged JPEG: its header survives

Pictures = list[Path]
Change = Callable[[Path], None]


def clean(folder: Path) -> None:
    """The data set as it is drawn."""


def confused(folder: Path) -> None:
    """The labels of all breeds but the first are shuffled among themselves: a model learns one breed only."""
    shuffle_labels(breeds(folder)[1:])


def mislabelled(folder: Path) -> None:
    """All labels are shuffled."""
    shuffle_labels(breeds(folder))


def ruined_breed(folder: Path) -> None:
    """The training pictures of the first breed show noise."""
    random = np.random.default_rng(11)
    for path in pictures(breeds(folder)[0]):
        noise = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        noise.resize((96, 96), Image.Resampling.NEAREST).save(path, quality=90)


def damaged(folder: Path) -> None:
    """One training picture ends after its header, another is empty."""
    first, second, *_ = pictures(breeds(folder)[0])
    first.write_bytes(first.read_bytes()[:CUT_BYTES])
    second.write_bytes(b"")


def leaking(folder: Path) -> None:
    """Test pictures are in the training split, too."""
    for breed in breeds(folder, "test"):
        for path in pictures(breed)[: round(LEAKED_SHARE * len(pictures(breed)))]:
            shutil.copy(path, folder / "train" / breed.name / f"again-{path.name}")


def draw(base: Path, folder: Path, change: Change) -> Path:
    """A copy of the data set in `base`, which is drawn if it is not there, with a change."""
    draw_dataset(base, Plan())
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(".*"))
    change(folder)
    return folder


def breeds(folder: Path, split: str = "train") -> list[Path]:
    return sorted(path for path in (folder / split).iterdir() if path.is_dir())


def pictures(breed: Path) -> Pictures:
    return sorted(breed.iterdir())


def shuffle_labels(folders: list[Path]) -> None:
    """Deal the pictures of some breeds out to these breeds at random; each keeps its number of pictures."""
    contents = [path.read_bytes() for folder in folders for path in pictures(folder)]
    order = np.random.default_rng(5).permutation(len(contents)).tolist()
    targets = [path for folder in folders for path in pictures(folder)]
    for target, place in zip(targets, order, strict=True):
        target.write_bytes(contents[place])
