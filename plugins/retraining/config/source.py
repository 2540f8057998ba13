"""Where the code for SageMaker's containers is: a run packs it, and the dataset's check reads with it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from retraining.errors import PlanError

FOLDER_VARIABLE = "RETRAINING_SOURCE_DIR"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def source_folder() -> Path:
    """The training code's folder: RETRAINING_SOURCE_DIR, else `sagemaker_code` beside `plugins`, or in it
    as `make mwaa` packs it.

    Raises PlanError where there is no train.py in it, or where a wheel is missing.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    plugins = Path(__file__).resolve().parents[2]
    folders = [Path(named)] if named else [parent / "sagemaker_code" for parent in (plugins.parent, plugins)]
    for folder in folders:
        if (folder / "train.py").is_file():
            _check_wheels(folder)
            return folder
    raise PlanError(
        f"No train.py in {' or '.join(map(str, folders))}: the training code was not found. Set "
        f"{FOLDER_VARIABLE} to its folder in Airflow's environment."
    )


def _check_wheels(folder: Path) -> None:
    """Raise PlanError unless the wheels of the code's `wheels.txt` are there: jobs install nothing."""
    pins = folder / "wheels.txt"
    wanted = _HASH.findall(pins.read_text(encoding="utf-8")) if pins.is_file() else []
    present = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in (folder / "wheels").glob("*.whl")}
    if not present.issuperset(wanted):
        raise PlanError(
            f"A wheel that {pins} names is missing in {folder / 'wheels'}, or another version of it is "
            "there: run `make wheels` where the code comes from."
        )
