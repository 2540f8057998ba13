"""A job's folders on disk, and how paths of the container (`/opt/ml/...`) map to them."""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from local_sagemaker.errors import ValidationError
from local_sagemaker.paths import below

CONTAINER_BASE = PurePosixPath("/opt/ml")

_MENTIONED_BASE = re.compile(rf"(?<![\w./-]){re.escape(str(CONTAINER_BASE))}(?![\w.-])")


@dataclass(frozen=True)
class JobFolders(ABC):
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
    def output(self) -> Path:
        return self.base / "output"

    def local(self, path: str, within: PurePosixPath = CONTAINER_BASE) -> Path:
        """The folder on this machine for a path in the container. Raises ValidationError outside `within`."""
        inside = PurePosixPath(path)
        if not inside.is_relative_to(within) or ".." in inside.parts:
            raise ValidationError(
                f"LocalPath {path!r} is outside {within}, the only folder of a job here; "
                f"use a path below {within}"
            )
        parts = inside.relative_to(CONTAINER_BASE).parts
        return below(self.base, "/".join(parts)) if parts else self.base

    def localised(self, text: str) -> str:
        """`text` with paths on this machine in place of paths in the container."""
        return _MENTIONED_BASE.sub(lambda _: str(self.base), text)

    @abstractmethod
    def create(self) -> None:
        """Create the folders that a container expects; creating them again changes nothing."""

    @abstractmethod
    def discard_data(self) -> None:
        """Free the disk once the job has ended; keep what explains how it ended."""

    def remove(self) -> None:
        """Delete the job from disk."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _prune(self, kept: set[Path]) -> None:
        """Delete all folders except those in `kept`, their parents, and the process's exit code."""
        _prune(self.root, {self.process, *kept})


def _prune(folder: Path, kept: set[Path]) -> None:
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir() or path in kept:
            continue
        if any(item.is_relative_to(path) for item in kept):
            _prune(path, kept)
        else:
            shutil.rmtree(path, ignore_errors=True)
