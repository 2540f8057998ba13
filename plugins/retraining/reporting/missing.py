"""Runs that ended without a page: Airflow skips even teardowns of a run that exceeds its time-out.

Each run notes its DAG run's id in its folder; the next one finds folders with a note and no page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, read_json, write_json
from retraining.deployment.inventory import run_folders
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_pattern

_NOTE = "started.json"


def note_start(aws: Aws, location: RunLocation, run_id: str) -> None:
    """Note in the run's folder which DAG run it belongs to."""
    write_json(aws.s3, f"{location.output}/{_NOTE}", {"run_id": run_id})


def unreported(aws: Aws, location: RunLocation, slug: str) -> Iterator[tuple[RunLocation, str]]:
    """Other runs of the pipeline that have a folder and no page, with their DAG runs' ids."""
    for name in run_folders(aws, run_pattern(slug), location):
        other = replace(location, run=name)
        if name != location.run and not exists(aws.s3, f"{other.output}/report.html"):
            note = read_json(aws.s3, f"{other.output}/{_NOTE}")
            if note is not None:
                yield other, note["run_id"]
