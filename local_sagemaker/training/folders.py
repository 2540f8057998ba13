"""Where a training job's things are on disk, and how paths of the container (`/opt/ml/...`) map to them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from local_sagemaker.errors import ValidationError

CONTAINER_BASE = PurePosixPath("/opt/ml")


@dataclass(frozen=True)
class JobFolders:
    """`root` is the job's own folder; `base` stands for the container's `/opt/ml`."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root / "opt_ml"

    @property
    def process(self) -> Path:
        return self.root / "process"

    @property
    def environment(self) -> Path:
        return self.root / "environment"

    @property
    def log(self) -> Path:
        return self.root / "container.log"

    @property
    def journal(self) -> Path:
        return self.root / "log.jsonl"

    @property
    def rules(self) -> Path:
        """What runs beside the job: the evaluation of its Debugger rules, the system sampler."""
        return self.root / "rules"

    @property
    def output(self) -> Path:
        return self.base / "output"

    @property
    def transfer(self) -> Path:
        """Archives on their way to or from S3."""
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
        return self.base / "output" / "data"

    @property
    def failure(self) -> Path:
        return self.base / "output" / "failure"

    def channel(self, name: str) -> Path:
        return self.base / "input" / "data" / name

    def local(self, path: str) -> Path:
        """The folder on this machine for a path in the container. Raises ValidationError outside of
        /opt/ml.
        """
        inside = PurePosixPath(path)
        if not inside.is_relative_to(CONTAINER_BASE) or ".." in inside.parts:
            raise ValidationError(
                f"LocalPath {path!r} is outside of {CONTAINER_BASE}, which is all that a job has here; "
                f"use a path below {CONTAINER_BASE}"
            )
        return self.base / inside.relative_to(CONTAINER_BASE)

    def create(self) -> None:
        """The folders that a container finds; making them again is harmless."""
        for folder in (
            self.config,
            self.model,
            self.output_data,
            self.base / "input" / "data",
            self.code,
        ):
            folder.mkdir(parents=True, exist_ok=True)

    def discard_data(self, *, keep_output: bool = False) -> None:
        """Free the disk once the job has ended: configuration, failure text, logs and exit codes stay.

        `keep_output`: its rules are still reading what the job wrote.
        """
        kept = {self.config, self.failure, self.rules} | ({self.output} if keep_output else set())
        for folder in (self.base / "input", self.base / "output", self.base, self.root):
            parents = {parent for path in kept for parent in path.parents}
            for path in _children(folder):
                if path.is_dir() and not _within(path, kept) and path not in parents | {self.process}:
                    shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Leave nothing of the job on disk."""
        shutil.rmtree(self.root, ignore_errors=True)


def _within(path: Path, folders: set[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
