"""Turns a folder of labelled images, as people have them, into the dataset that a run reads.

    python -m retraining.dataset FOLDER INTO SHARES

Files are hard links where the file system allows it, so that nothing takes up space twice.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from retraining.dataset.images import ImageFacts, InspectedImage, inspect_image
from retraining.dataset.layouts import Layout, Placed, recognise
from retraining.dataset.listing import SPLITS, DatasetImage, same_for_a_person
from retraining.dataset.splits import OPEN, assign
from retraining.errors import DatasetError

_CLASS_COLUMNS = ("class", "label", "breed", "category", "species", "target", "classname", "class_name")
_KNOWN = 0.5  # share of a column's values that must be images for it to name them

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Arranged:
    """What a folder became: images by split and class, and paths that are not used, with the reason."""

    layout: Layout
    counts: dict[str, Counter[str]]
    left_out: dict[str, str]
    ignored: int


def arrange(source: Path, target: Path, shares: Mapping[str, float], progress: Progress) -> Arranged:
    """Make `target` the dataset of the images in `source`, in the place of an earlier one.

    Raises DatasetError where the layout is not recognised or the images are too few.
    """
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise DatasetError(f"{target} is the folder of the images itself, or holds it: name another.")
    files = {path.relative_to(source).as_posix(): path for path in sorted(_below(source))}
    layout = recognise(files, _table(source, files))
    _check_layout(source, layout)
    inspected = _inspect(layout.images, files, progress)
    assignment = assign(inspected, shares)
    placed = {image.path: image for image in layout.images}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    building = target.with_name(f"{target.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    for path, split in assignment.splits.items():
        image = placed[path]
        counts[split][image.label] += 1
        _link(files[path], building / split / image.label / PurePosixPath(image.name))
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)
    left_out = {**dict.fromkeys(layout.unlabelled, "it has no class"), **assignment.left_out}
    return Arranged(layout, counts, left_out, len(files) - len(layout.images) - len(layout.unlabelled))


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links to folders, but not around in circles."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (path for name in names if (path := Path(parent, name)).is_file())


def _table(source: Path, files: Mapping[str, Path]) -> dict[str, str] | None:
    """The classes by image of the table at the folder's top; None without a table.

    Raises DatasetError where the table's columns cannot be told.
    """
    tables = [path for name, path in files.items() if "/" not in name and name.lower().endswith(".csv")]
    known = {text for name in files for text in (name, PurePosixPath(name).name, PurePosixPath(name).stem)}
    for path in tables:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            head, *rows = list(csv.reader(file)) or [[]]
        named = [number for number in range(len(head)) if _names_images(rows, number, known)]
        if not named:
            continue
        others = [number for number in range(len(head)) if number not in named]
        by_name = [number for number in others if head[number].strip().lower() in _CLASS_COLUMNS]
        if len(by_name or others) != 1:
            raise DatasetError(
                f"{path.relative_to(source)} has the columns {', '.join(head)}, and which one is the class "
                f"cannot be told: name it 'class'."
            )
        [label] = by_name or others
        return {row[named[0]]: row[label].strip() for row in rows if len(row) > max(label, named[0])}
    return None


def _names_images(rows: list[list[str]], column: int, known: set[str]) -> bool:
    values = [row[column] for row in rows if len(row) > column]
    return bool(values) and sum(value in known for value in values) > _KNOWN * len(values)


def _check_layout(source: Path, layout: Layout) -> None:
    """Raises DatasetError for what has no classes, no training images, or classes that look the same."""
    if not layout.images:
        found = f"{len(layout.unlabelled)} images without a class" if layout.unlabelled else "no images"
        raise DatasetError(
            f"{source} has {found}. Known are: train/, valid/ and test/ with a folder for each class, of "
            "which valid/ (or val/) and test/ may be missing; one folder for each class; images with a table "
            "labels.csv that has a column for the file and one for the class."
        )
    if layout.splits and OPEN not in layout.splits:
        raise DatasetError(f"{source} has {', '.join(sorted(layout.splits))}, but no train/: add it.")
    if same := list(same_for_a_person(layout.labels)):
        raise DatasetError("; ".join(same))


def _inspect(placed: list[Placed], files: Mapping[str, Path], progress: Progress) -> list[InspectedImage]:
    inspected: list[InspectedImage] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda image: _facts(files[image.path]), placed)
        for image, facts in zip(placed, found, strict=True):
            inspected.append((DatasetImage(image.path, image.split or OPEN, image.label, "", 0), facts))
            progress(len(inspected), len(placed))
    return inspected


def _facts(path: Path) -> ImageFacts:
    try:
        return inspect_image(path.read_bytes())
    except OSError as error:
        return ImageFacts("", problem=f"cannot be read: {error.strerror}")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source.resolve())
    except FileExistsError as error:
        raise DatasetError(f"{source} and another image of its class have one name: rename one.") from error
    except OSError:  # another file system
        shutil.copyfile(source, target)
