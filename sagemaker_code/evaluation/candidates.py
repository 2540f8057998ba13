"""The models to evaluate, read from a training job's model.tar.gz or its unpacked folder."""

import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from classifier.artifact import CARD, WEIGHTS, ModelCard, load_model
from classifier.errors import InputValueError, ModelValueError
from torch import nn

ARCHIVE = "model.tar.gz"


@dataclass(frozen=True)
class Candidate:
    """A model on the CPU, with everything known about it apart from its predictions."""

    role: str
    """`challenger` or `champion`"""
    source: Path
    card: ModelCard
    model: nn.Module
    archive_bytes: int | None
    """Size of model.tar.gz; None for a folder."""
    weights_bytes: int

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def read_candidate(role: str, source: Path, scratch: Path) -> Candidate:
    """Unpack below `scratch` and load. Raises ModelValueError that names role, source and reason."""
    try:
        folder, archive = _locate(source)
        if archive:
            folder = scratch / role
            unpack(archive, folder)
        model, card = load_model(folder, torch.device("cpu"))
    except (InputValueError, OSError, RuntimeError, tarfile.TarError, zlib.error, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelValueError(
            f"the {role} in {source} cannot be read: {reason}. "
            f"Give the job the {ARCHIVE} that a training job of this pipeline wrote"
        ) from error
    return Candidate(
        role,
        source,
        card,
        model,
        archive.stat().st_size if archive else None,
        (folder / WEIGHTS).stat().st_size,
    )


def _locate(source: Path) -> tuple[Path, Path | None]:
    """The model's folder and, if it is still packed, its archive."""
    if source.is_file():
        return source.parent, source
    if (source / CARD).is_file():
        return source, None
    if (source / ARCHIVE).is_file():
        return source, source / ARCHIVE
    state = "neither is there" if source.is_dir() else "the folder does not exist"
    raise ModelValueError(f"it must hold {ARCHIVE} or {CARD}, but {state}")


def unpack(archive: Path, folder: Path) -> None:
    """Extract only weights and card; code, links and paths are ignored. Raises ModelValueError."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {CARD, WEIGHTS}
    with tarfile.open(archive, "r:*") as members:
        for member in members:
            name = str(PurePosixPath(member.name))
            content = members.extractfile(member) if name in wanted and member.isreg() else None
            if content:
                with content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
                wanted.remove(name)
    if wanted:
        raise ModelValueError(f"{archive.name} holds no {' and no '.join(sorted(wanted))}")
