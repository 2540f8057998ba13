"""The user's source code, unpacked before the container starts.

AWS's toolkit downloads it only if `/opt/ml/code` is empty (`sagemaker_training/files.py`).
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from local_sagemaker.archives import unpack
from local_sagemaker.jobs.failures import JobFailedError
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError, Objects

_PARAMETER = "sagemaker_submit_directory"


def unpack_source(hyperparameters: dict[str, str], folder: Path, workspace: Path, objects: Objects) -> None:
    """Fill `folder` from the archive that the hyperparameter names, if that is in S3.

    Raises JobFailedError or OSError.
    """
    uri = _decoded(hyperparameters.get(_PARAMETER, ""))
    if not uri.startswith("s3://"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    archive = workspace / "sourcedir.tar.gz"
    try:
        objects.download(uri, archive)
        unpack(archive, folder)
    except (ObjectMissingError, BucketMissingError) as error:
        raise JobFailedError(
            f"the source code of the hyperparameter {_PARAMETER} is missing: {error}"
        ) from error
    except tarfile.TarError as error:
        raise JobFailedError(f"the source code {uri} is not a usable tar.gz: {error}") from error
    archive.unlink()


def _decoded(value: str) -> str:
    """A hyperparameter as the toolkit reads it: decoded if it is JSON, else the text itself."""
    try:
        return str(json.loads(value))
    except ValueError:
        return value
