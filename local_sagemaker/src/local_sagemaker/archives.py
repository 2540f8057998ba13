"""Unpacks tar archives from users: no member may be written outside the folder."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(tar: tarfile.TarFile, folder: Path) -> None:
    """Extract everything into `folder`. Raises tarfile.TarError for a member that would leave it.

    Does what PEP 706's filter `data` does, which Python has from 3.11.4 on; Debian 12 has 3.11.2.
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
