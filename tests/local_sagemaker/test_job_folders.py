"""How paths of a container become paths on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_sagemaker.errors import ValidationError
from local_sagemaker.processing.folders import ProcessingFolders


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/opt/ml/processing/data", "/jobs/one/opt_ml/processing/data"),
        ("--data=/opt/ml/processing/data", "--data=/jobs/one/opt_ml/processing/data"),
        ("cd '/opt/ml' && ls /opt/ml/model", "cd '/jobs/one/opt_ml' && ls /jobs/one/opt_ml/model"),
        ("/opt/ml/a:/opt/ml/b", "/jobs/one/opt_ml/a:/jobs/one/opt_ml/b"),
        ("s3://bucket/opt/ml/processing", "s3://bucket/opt/ml/processing"),
        ("/opt/mlflow", "/opt/mlflow"),
        ("/opt/ml-2/x", "/opt/ml-2/x"),
        ("../opt/ml", "../opt/ml"),
    ],
)
def test_paths_of_the_container_are_found_in_any_text(text: str, expected: str) -> None:
    assert ProcessingFolders(Path("/jobs/one")).localised(text) == expected


@pytest.mark.parametrize("path", ["/opt/ml/processing", "/opt/ml/processing/a/b"])
def test_data_is_below_processing(path: str) -> None:
    folders = ProcessingFolders(Path("/jobs/one"))
    assert folders.data(path) == Path("/jobs/one/opt_ml") / path.removeprefix("/opt/ml/")


@pytest.mark.parametrize("path", ["/opt/ml/model", "/data/x", "processing", "/opt/ml/processing/../model"])
def test_data_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="below /opt/ml/processing"):
        ProcessingFolders(Path("/jobs/one")).data(path)


def test_files_that_explain_a_job_s_end_are_kept(tmp_path: Path) -> None:
    folders = ProcessingFolders(tmp_path)
    folders.create()
    kept = [folders.config / "resourceconfig.json", folders.message, folders.process / "exit", folders.log]
    gone = [folders.base / "processing" / "out" / "big", folders.environment / "bin" / "python"]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folders.discard_data()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)
