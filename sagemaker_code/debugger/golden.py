"""``python -m debugger.golden PATH``: compare our profiler rules with AWS's reports of the same jobs.

PATH is a job folder or any folder above some. The last line is ``N fields, M differ``; the exit status is 0
if none do.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from debugger.profiler.golden import Comparison, compare_job, job_folders


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print what differs and what was left out."""
    parser = argparse.ArgumentParser(prog="python -m debugger.golden", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--left-out", action="store_true", help="list every field left out, not only their number"
    )
    options = parser.parse_args(arguments)
    folders = job_folders(options.path)
    if not folders:
        print(
            f"no job folder (system_metrics.jsonl beside expected/) at or below {options.path}",
            file=sys.stderr,
        )
        return 2
    whole = Comparison()
    for folder in folders:
        outcome = compare_job(folder)
        print(f"{folder.name}: {outcome.last_line()}, {len(outcome.left_out)} left out")
        whole.add(outcome)
    for line in whole.differ:
        print(f"differs: {line}")
    if options.left_out:
        print(*(f"left out: {line}" for line in whole.left_out), sep="\n")
    for reason, count in Counter(line.split(": ", 1)[1] for line in whole.left_out).items():
        print(f"left out: {count} fields: {reason}")
    print(whole.last_line())
    return 1 if whole.differ else 0


if __name__ == "__main__":
    sys.exit(main())
