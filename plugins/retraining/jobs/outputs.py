"""What a training job left in S3 beside its model: the archive of its output folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any


def output_of(training: Mapping[str, Any]) -> str:
    """URI of the folder that the job's request names for its results, without a slash at its end."""
    return str(training["Training"]["OutputDataConfig"]["S3OutputPath"]).rstrip("/")


def output_archive(training: Mapping[str, Any]) -> str:
    """URI of the archive with the job's output folder; a job that left nothing there has none."""
    return f"{output_of(training)}/{training['job']}/output/output.tar.gz"


def archived(archive: bytes, beginning: str) -> Iterator[tuple[str, bytes]]:
    """The files of an archive whose names begin so, by name. Raises tarfile.TarError for what is none."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            name = member.name.removeprefix("./")
            file = tar.extractfile(member) if name.startswith(beginning) else None
            if file is not None:
                yield name, file.read()
