"""Some of the test images, kept with the results for a comparison of predictions elsewhere."""

import shutil
from pathlib import Path

from evaluation.scoring import TestSet

FOLDER = "images"
_GOLDEN_RATIO = 0.618033988749895


def keep_images(test: TestSet, limit: int, folder: Path) -> int:
    """Copy up to `limit` test images to `folder/images/<class>/<file>`; returns how many.

    They are taken from each class in turn, spread evenly over its sorted files; the same ones every time.
    """
    kept = sample(test.keys, limit)
    files = dict(zip(test.keys, test.files, strict=True))
    for key in kept:
        target = folder / FOLDER / key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[key], target)
    return len(kept)


def sample(keys: list[str], limit: int) -> list[str]:
    """Up to `limit` of the keys `<class>/<file>`, from each class in turn."""
    classes: dict[str, list[str]] = {}
    for key in sorted(keys):
        classes.setdefault(key.partition("/")[0], []).append(key)
    spread = [_spread(of_class) for of_class in classes.values()]
    rounds = max(map(len, spread), default=0)
    return [of_class[n] for n in range(rounds) for of_class in spread if n < len(of_class)][:limit]


def _spread(keys: list[str]) -> list[str]:
    """The keys in an order of which every beginning is spread over all of them (golden-ratio sequence)."""
    return [key for _, key in sorted(((n * _GOLDEN_RATIO) % 1, key) for n, key in enumerate(keys))]
