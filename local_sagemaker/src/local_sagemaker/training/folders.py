"""A training job's folders on disk."""

from __future__ import annotations

from pathlib import Path

from local_sagemaker.jobs.folders import JobFolders
from local_sagemaker.paths import below


class TrainingFolders(JobFolders):
    """A training container's folders below `/opt/ml`, and the platform's own beside them."""

    @property
    def rules(self) -> Path:
        """Files of the evaluators of the job's Debugger rules, and of the system sampler."""
        return self.root / "rules"

    @property
    def transfer(self) -> Path:
        """Archives in transit to or from S3."""
        return self.root / "transfer"

    @property
    def config(self) -> Path:
        return self.base / "input" / "config"

    @property
    def model(self) -> Path:
        return self.base / "model"

    @property
    def code(self) -> Path:
        return self.base / "code"

    @property
    def output_data(self) -> Path:
        return self.output / "data"

    @property
    def failure(self) -> Path:
        return self.output / "failure"

    def channel(self, name: str) -> Path:
        """The folder of a channel. Raises UnsafePathError."""
        return below(self.base / "input" / "data", name)

    def create(self) -> None:
        for folder in (
            self.config,
            self.model,
            self.output_data,
            self.base / "input" / "data",
            self.code,
        ):
            folder.mkdir(parents=True, exist_ok=True)

    def discard_data(self, *, keep_output: bool = False) -> None:
        """Free the disk once the job has ended; keep configuration, failure text, logs and exit codes.

        `keep_output` keeps the job's output, for rules that are still reading it.
        """
        self._prune({self.config, self.failure, self.rules} | ({self.output} if keep_output else set()))
