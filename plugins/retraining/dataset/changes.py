"""What changed in the data set since another run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from retraining.dataset.duplicates import Seen

KINDS = ("added", "removed", "changed")


def changes_since(run: str, before: Sequence[Seen], now: Sequence[Seen]) -> dict[str, Any]:
    """`{since, classes: {class: {added, removed, changed}}, added, removed, changed}`, in pictures.

    A picture that moved was removed at one place and added at another; one whose content is another under the
    same key has changed. Classes without a change are left out.
    """
    old, new = _contents(before), _contents(now)
    classes: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(KINDS, 0))
    for path, (label, content) in new.items():
        if path not in old:
            classes[label]["added"] += 1
        elif old[path][1] != content:
            classes[label]["changed"] += 1
    for path, (label, _) in old.items():
        if path not in new:
            classes[label]["removed"] += 1
    totals = {kind: sum(numbers[kind] for numbers in classes.values()) for kind in KINDS}
    return {"since": run, "classes": dict(sorted(classes.items())), **totals}


def _contents(seen: Sequence[Seen]) -> Mapping[str, tuple[str, str]]:
    """Class and hash of the content by path."""
    return {picture.path: (picture.label, look.sha256) for picture, look in seen}
