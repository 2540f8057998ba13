"""The drills' dataset of drawn dogs, and what can be wrong with one.

Every variant has the same test images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from demo.sample_dataset import Plan, draw_dataset

LEAKED_SHARE = 0.2  # of the test images that leak into the training split
CUT_BYTES = 400  # of a damaged JPEG: its header survives

Images = list[Path]
Change = Callable[[Path], None]


def clean(folder: Path) -> None:
    """The dataset as it is drawn."""


def confused(folder: Path) -> None:
    """The labels of all classes but the first are shuffled, so that a model learns one class only."""
    shuffle_labels(classes(folder)[1:])


def mislabelled(folder: Path) -> None:
    """All labels are shuffled."""
    shuffle_labels(classes(folder))


def ruined_class(folder: Path) -> None:
    """The training images of the first class show noise."""
    random = np.random.default_rng(11)
    for path in images(classes(folder)[0]):
        noise = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        noise.resize((96, 96), Image.Resampling.NEAREST).save(path, quality=90)


def damaged(folder: Path) -> None:
    """A third of a class's training images end after their headers, and one is empty."""
    first, *others = images(classes(folder)[0])
    first.write_bytes(b"")
    for path in others[::3]:
        path.write_bytes(path.read_bytes()[:CUT_BYTES])


def leaking(folder: Path) -> None:
    """Test images are in the training split, too."""
    for class_folder in classes(folder, "test"):
        for path in images(class_folder)[: round(LEAKED_SHARE * len(images(class_folder)))]:
            shutil.copy(path, folder / "train" / class_folder.name / f"again-{path.name}")


def draw(base: Path, folder: Path, change: Change) -> Path:
    """A copy of the dataset in `base`, which is drawn if it is not there, with a change."""
    draw_dataset(base, Plan())
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(".*"))
    change(folder)
    return folder


def classes(folder: Path, split: str = "train") -> list[Path]:
    return sorted(path for path in (folder / split).iterdir() if path.is_dir())


def images(class_folder: Path) -> Images:
    return sorted(class_folder.iterdir())


def shuffle_labels(folders: list[Path]) -> None:
    """Deal the images of some classes out to these classes at random; each keeps its number of images."""
    contents = [path.read_bytes() for folder in folders for path in images(folder)]
    order = np.random.default_rng(5).permutation(len(contents)).tolist()
    targets = [path for folder in folders for path in images(folder)]
    for target, place in zip(targets, order, strict=True):
        target.write_bytes(contents[place])
