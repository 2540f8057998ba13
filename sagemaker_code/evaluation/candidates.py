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
MOST_MEMBERS = 100_000
MOST_BYTES = 32 * 2**30
"""Size of a file in an archive."""
MOST_HEADER_BYTES = 256 * 2**10
"""Size of a name or attribute beside a member, which tarfile reads into memory."""
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


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
    with tarfile.open(archive, "r:*", tarinfo=_Member) as members:
        for number, member in enumerate(members, 1):
            if number > MOST_MEMBERS:
                raise ModelValueError(f"{archive.name} has more than {MOST_MEMBERS:,} members")
            _check_size(member)
            name = str(PurePosixPath(member.name))
            content = members.extractfile(member) if name in wanted and member.isreg() else None
            if content:
                with content, (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
                wanted.remove(name)
    if wanted:
        raise ModelValueError(f"{archive.name} holds no {' and no '.join(sorted(wanted))}")


class _Member(tarfile.TarInfo):
    """A header that cannot make tarfile read without end, or much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member


def _check_size(member: tarfile.TarInfo) -> None:
    most = MOST_HEADER_BYTES if member.type in _EXTENSIONS else MOST_BYTES
    if not 0 <= member.size <= most or member.issparse():
        raise ModelValueError(f"the header of {member.name!r} says that it has {member.size} bytes")
