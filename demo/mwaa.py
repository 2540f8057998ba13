"""Packs the project for managed Airflow (`make mwaa`): what its bucket in S3 has to hold.

    dags/             the DAG files and pipeline files
    plugins.zip       `retraining`, its plugin, and beside them the code for SageMaker's containers
    requirements.txt  what MWAA's image lacks

MWAA unpacks `plugins.zip` into Airflow's plugins folder and installs the requirements under constraints of
its own.
"""

from __future__ import annotations

import argparse
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from demo.environments import ROOT

_LEFT_OUT = {"__pycache__"}
_PLUGINS = (
    "plugins/.airflowignore",
    "plugins/retraining_pages.py",
    "plugins/retraining",
    "sagemaker_code",
)
_ZIP_TIME = (2020, 1, 1, 0, 0, 0)  # the same for all, so that equal files give an equal archive


def build(folder: Path) -> None:
    """Write the three into `folder`; what was there under their names is replaced."""
    shutil.rmtree(folder / "dags", ignore_errors=True)
    for path in _files(ROOT / "dags"):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(ROOT / "requirements-mwaa.txt", folder / "requirements.txt")
    with zipfile.ZipFile(folder / "plugins.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in _PLUGINS:
            for path in _files(ROOT / part):
                name = path.relative_to(ROOT).as_posix().removeprefix("plugins/")
                entry = zipfile.ZipInfo(name, _ZIP_TIME)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for found in sorted(path.rglob("*")):
        if found.is_file() and not _LEFT_OUT.intersection(found.relative_to(path).parts):
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "dist" / "mwaa")
    folder: Path = parser.parse_args().folder.absolute()
    build(folder)
    size = (folder / "plugins.zip").stat().st_size
    print(f"{folder}: dags/, plugins.zip ({size / 1e6:.1f} MB) and requirements.txt; docs/mwaa.md goes on")


if __name__ == "__main__":
    main()
