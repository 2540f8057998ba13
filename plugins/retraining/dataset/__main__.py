"""`python -m retraining.dataset FOLDER INTO SHARES`: what `make dataset DATA=...` runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from retraining.dataset.arranging import Arranged, arrange
from retraining.dataset.listing import SPLITS
from retraining.dataset.splits import read_shares
from retraining.errors import DatasetError

_SHOWN = 10  # files that are not used, by name


def main(source: str, target: str, shares: str) -> int:
    out = Console()
    bar = Progress(TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), console=out)
    try:
        with bar:
            task = bar.add_task("Reading images", total=None)
            arranged = arrange(
                Path(source),
                Path(target),
                read_shares(shares),
                lambda done, total: bar.update(task, completed=done, total=total),
            )
    except DatasetError as error:
        print(f"\nFailed: {error}", file=sys.stderr)
        return 1
    _show(out, arranged)
    out.print(f"\nUse it: make demo DATA={shlex.quote(target)}", highlight=False, soft_wrap=True)
    return 0


def _show(out: Console, arranged: Arranged) -> None:
    out.print(f"  Found: {arranged.layout.text}", highlight=False, soft_wrap=True)
    table = Table("split", "images", "classes", "smallest class", "largest class")
    for split in SPLITS:
        counts = arranged.counts[split]
        (largest, most), (smallest, fewest) = counts.most_common(1)[0], counts.most_common()[-1]
        table.add_row(
            split, str(counts.total()), str(len(counts)), f"{smallest} {fewest}", f"{largest} {most}"
        )
    out.print(table)
    if arranged.ignored:
        out.print(f"  {arranged.ignored} files that are no images are ignored.", highlight=False)
    if arranged.left_out:
        out.print(f"  {len(arranged.left_out)} images are left out:", highlight=False)
        for path, reason in list(arranged.left_out.items())[:_SHOWN]:
            out.print(f"    {path}: {reason}", highlight=False, markup=False, soft_wrap=True)
        if len(arranged.left_out) > _SHOWN:
            out.print(f"    and {len(arranged.left_out) - _SHOWN} more", highlight=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
