"""How people lay out images and their classes, recognised by paths alone: in a folder and in S3 alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from retraining.dataset.reader import image_reader

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""Names of folders, in small letters, and the splits that they mean."""


@dataclass(frozen=True)
class Placed:
    """An image, its class, and its split; None where the layout has no splits.

    `path` is where the image is, `name` its path below the folder of its class.
    """

    path: str
    split: str | None
    label: str
    name: str


@dataclass(frozen=True)
class Layout:
    """The images with a class, those without, and the layout in words."""

    text: str
    images: list[Placed]
    unlabelled: list[str]

    @property
    def splits(self) -> set[str]:
        return {image.split for image in self.images if image.split}

    @property
    def labels(self) -> set[str]:
        return {image.label for image in self.images}


def recognise(paths: Iterable[str], labels: Mapping[str, str] | None = None) -> Layout:
    """The layout of files with these paths; files that are no images, and hidden ones, are ignored.

    `labels` are classes by an image's path, file name, or file name without suffix, as a table has them.
    """
    images = sorted(path for path in paths if _is_image(path))
    root = _common_root(images)
    below = {path: path.removeprefix(root) for path in images}
    if labels is not None:
        return _by_table(below, labels)
    if any(_split_of(short) for short in below.values()):
        return _by_split(below)
    placed = [_placed(path, None, short) for path, short in below.items() if "/" in short]
    unlabelled = [path for path, short in below.items() if "/" not in short]
    return Layout("one folder for each class, and no splits", placed, unlabelled)


def advice(paths: Sequence[str]) -> str | None:
    """What to do about a dataset in S3 whose layout is another one; None where nothing is recognised."""
    layout = recognise(paths)
    tables = [path for path in paths if path.lower().endswith(".csv")]
    if tables and not layout.images:
        seen = f"a table, {tables[0]}, beside {len(layout.unlabelled)} images without folders of classes"
    elif layout.images:
        first = layout.images[0].path
        seen = f"{layout.text}: {len(layout.images)} images of {len(layout.labels)} classes, such as {first}"
    else:
        return None
    return (
        f"There is {seen}. A run reads train/<class>/<file>, valid/... and test/...: arrange a local copy "
        "with make dataset DATA=<folder> SPLIT=0.8,0.1,0.1, and upload what it makes."
    )


def _is_image(path: str) -> bool:
    parts = path.split("/")
    return not any(part.startswith(".") for part in parts) and image_reader().is_image_name(parts[-1])


def _common_root(paths: Sequence[str]) -> str:
    """The folders that all images share, but for a split's and for that of a single class."""
    root = ""
    while paths:
        folders = {path.removeprefix(root).partition("/")[0] for path in paths}
        deeper = all(path.removeprefix(root).count("/") > 1 for path in paths)
        if len(folders) > 1 or not deeper or next(iter(folders)).lower() in SPLIT_NAMES:
            break
        root += next(iter(folders)) + "/"
    return root


def _split_of(short: str) -> str | None:
    folder, slash, _ = short.partition("/")
    return SPLIT_NAMES.get(folder.lower()) if slash else None


def _by_split(below: Mapping[str, str]) -> Layout:
    placed: list[Placed] = []
    unlabelled: list[str] = []
    found: dict[str, dict[str, str]] = {}
    for path, short in below.items():
        if split := _split_of(short):
            found.setdefault(split, {})[path] = short.partition("/")[2]
        else:
            unlabelled.append(path)
    for split, inside in found.items():
        root = _common_root(list(inside.values()))
        for path, short in inside.items():
            rest = short.removeprefix(root)
            if "/" in rest:
                placed.append(_placed(path, split, rest))
            else:
                unlabelled.append(path)
    folders = sorted({short.partition("/")[0] for short in below.values() if _split_of(short)})
    text = " and ".join(f"{folder}/" for folder in folders)
    return Layout(f"{text} with a folder for each class", placed, unlabelled)


def _by_table(below: Mapping[str, str], labels: Mapping[str, str]) -> Layout:
    placed: list[Placed] = []
    unlabelled: list[str] = []
    for path, short in below.items():
        file = PurePosixPath(short)
        keys = (path, short, file.name, file.stem)
        label = next((labels[key] for key in keys if labels.get(key)), None)
        if label is None:
            unlabelled.append(path)
        else:
            placed.append(Placed(path, _split_of(short), label.replace("/", "_"), file.name))
    if {image.split for image in placed} == {"train"}:  # a competition's: the others have no classes
        placed = [replace(image, split=None) for image in placed]
    return Layout("a table of classes", placed, unlabelled)


def _placed(path: str, split: str | None, short: str) -> Placed:
    label, _, name = short.partition("/")
    return Placed(path, split, label, name)
