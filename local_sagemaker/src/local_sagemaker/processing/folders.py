"""Where a processing job's things are on disk."""

from __future__ import annotations

from pathlib import Path

from local_sagemaker.jobs.folders import CONTAINER_BASE, JobFolders

PROCESSING = CONTAINER_BASE / "processing"


class ProcessingFolders(JobFolders):
    """A processing container's folders below `/opt/ml`, and what the platform keeps beside them."""

    @property
    def config(self) -> Path:
        return self.base / "config"

    @property
    def message(self) -> Path:
        """What the container writes here becomes the job's ExitMessage."""
        return self.output / "message"

    def data(self, path: str) -> Path:
        """The folder of an input or output. Raises ValidationError outside of /opt/ml/processing."""
        return self.local(path, below=PROCESSING)

    def create(self) -> None:
        for folder in (self.config, self.output, self.base / "processing"):
            folder.mkdir(parents=True, exist_ok=True)

    def discard_data(self) -> None:
        """Free the disk once the job has ended: configuration, exit message, logs and exit code stay."""
        self._prune({self.config, self.message})
