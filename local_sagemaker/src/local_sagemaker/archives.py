"""Unpacking of tar archives that somebody else made: nothing of them may land outside the folder."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Extract everything into `folder`. Raises tarfile.TarError for a member that would leave it.

    The filter `data` of PEP 706 does this; Python 3.11 has it from 3.11.4 on, and Debian 12 carries 3.11.2.
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
        return
    root = folder.resolve()
    for member in tar.getmembers():
        if not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name!r} is neither a file nor a folder")
        if not (root / member.name).resolve().is_relative_to(root):
            raise tarfile.ExtractError(f"{member.name!r} would lie outside of {folder}")
    tar.extractall(folder)  # noqa: S202 - every member was checked above
