"""Which split each image goes into: by its content, evenly over the classes, duplicates together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from retraining.config.sections import Dataset
from retraining.dataset.duplicates import find_duplicates
from retraining.dataset.images import InspectedImage
from retraining.dataset.listing import SPLITS, DatasetImage, fewest_images
from retraining.errors import DatasetError

OPEN = "train"
"""The split of images that may still go into another one."""
_HELD_OUT = ("test", "valid")  # in the order in which they take their images
_FEWEST = fewest_images(Dataset())  # with a pipeline's defaults


@dataclass(frozen=True)
class Assignment:
    """The split of each image that is used, and why others are left out; by path."""

    splits: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


def assign(inspected: Sequence[InspectedImage], shares: Mapping[str, float]) -> Assignment:
    """Give every image a split.

    Images of valid and test stay there. Where one of them has none, its share is taken from train: of each
    class, in the order of the contents' SHA-256, so that an image stays where it is when others are added.
    Copies and near duplicates of an image go with it; those that the given splits have twice stay in test,
    then in valid. Contents with two classes are left out, as are images that cannot be read.
    Raises DatasetError for classes with too few images.
    """
    left_out = {image.path: f"it {facts.problem}" for image, facts in inspected if facts.problem}
    readable = [(image, facts) for image, facts in inspected if not facts.problem]
    duplicates = find_duplicates(readable)
    for group in duplicates.exact:
        if len(group.labels) > 1:
            classes = " and ".join(sorted(group.labels))
            left_out |= {image.path: f"its content is in {classes}" for image in group.images}
    digests = {image.path: facts.sha256 for image, facts in readable if image.path not in left_out}
    images = {image.path: image for image, _ in readable if image.path in digests}
    units = _units(images, [group.images for group in (*duplicates.exact, *duplicates.near)])

    given = {split for split in _HELD_OUT if any(image.split == split for image in images.values())}
    splits: dict[str, str] = {}
    open_units: dict[str, list[list[DatasetImage]]] = defaultdict(list)
    for unit in units:
        held = next((split for split in _HELD_OUT if any(image.split == split for image in unit)), None)
        if held is None:
            open_units[unit[0].label].append(unit)
            continue
        for image in unit:
            if image.split == held:
                splits[image.path] = held
            else:
                left_out[image.path] = f"{held}/ has the same image, or nearly"
    wanted = {split: shares[split] for split in _HELD_OUT if split not in given}
    for label_units in open_units.values():
        ordered = sorted(label_units, key=lambda unit: min(digests[image.path] for image in unit))
        for unit, split in zip(ordered, _quota(ordered, wanted, shares[OPEN]), strict=True):
            splits |= {image.path: split for image in unit}
    _check(splits, images)
    return Assignment(splits, left_out)


def read_shares(text: str) -> dict[str, float]:
    """Shares of train, valid and test from `0.8,0.1,0.1` or `80,10,10`. Raises DatasetError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    total = sum(numbers)
    if len(numbers) != len(SPLITS) or min(numbers) <= 0 or not total < float("inf"):
        raise DatasetError(
            f"SPLIT={text} is no split: give the shares of train, valid and test, for example 0.8,0.1,0.1"
        )
    return {split: number / total for split, number in zip(SPLITS, numbers, strict=True)}


def _units(
    images: Mapping[str, DatasetImage], groups: Iterable[Sequence[DatasetImage]]
) -> list[list[DatasetImage]]:
    """The images in sets that stay together: connected by a group, or one image alone."""
    parent = {path: path for path in images}

    def root(path: str) -> str:
        while parent[path] != path:
            parent[path] = path = parent[parent[path]]
        return path

    for group in groups:
        paths = [image.path for image in group if image.path in images]
        for path in paths[1:]:
            parent[root(path)] = root(paths[0])
    units: dict[str, list[DatasetImage]] = defaultdict(list)
    for path in sorted(images):
        units[root(path)].append(images[path])
    return list(units.values())


def _quota(units: Sequence[Sequence[DatasetImage]], wanted: Mapping[str, float], rest: float) -> list[str]:
    """The split of each unit: the first ones fill the wanted shares, at least one unit each."""
    total = sum(map(len, units))
    whole = rest + sum(wanted.values())
    splits: list[str] = []
    passed, taken = 0.0, 0
    for number, (split, share) in enumerate(wanted.items()):
        passed += share / whole
        needed = len(wanted) - number  # units, by the splits after this one and by train
        while len(splits) < len(units) - needed and (
            split not in splits or taken + len(units[len(splits)]) / 2 <= passed * total
        ):
            taken += len(units[len(splits)])
            splits.append(split)
    return splits + [OPEN] * (len(units) - len(splits))


def _check(splits: Mapping[str, str], images: Mapping[str, DatasetImage]) -> None:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(SPLITS, 0))
    for path, split in splits.items():
        counts[images[path].label][split] += 1
    few = [
        f"{label} ({', '.join(f'{split} {count[split]}' for split in SPLITS)})"
        for label, count in sorted(counts.items())
        if any(count[split] < fewest for split, fewest in _FEWEST.items())
    ]
    if few:
        fewest = ", ".join(f"{count} in {split}" for split, count in _FEWEST.items())
        raise DatasetError(
            f"Classes with too few different images, of which each needs {fewest}: {'; '.join(few)}. Add "
            "images, or take the classes' folders away."
        )
    if len(counts) < len(_HELD_OUT):
        raise DatasetError("A classifier needs at least two classes with images that can be read.")
