"""A processing job's folders on disk."""

from __future__ import annotations

from pathlib import Path

from local_sagemaker.jobs.folders import CONTAINER_BASE, JobFolders

PROCESSING = CONTAINER_BASE / "processing"


class ProcessingFolders(JobFolders):
    """A processing container's folders below `/opt/ml`."""

    @property
    def config(self) -> Path:
        return self.base / "config"

    @property
    def message(self) -> Path:
        """The file whose content becomes the job's ExitMessage."""
        return self.output / "message"

    def data(self, path: str) -> Path:
        """The folder of an input or output. Raises ValidationError outside /opt/ml/processing."""
        return self.local(path, within=PROCESSING)

    def create(self) -> None:
        for folder in (self.config, self.output, self.base / "processing"):
            folder.mkdir(parents=True, exist_ok=True)

    def discard_data(self) -> None:
        """Free the disk once the job has ended; keep configuration, exit message, logs and exit code."""
        self._prune({self.config, self.message})
