"""Paths made of what users name: object keys, members of archives, channels, folders of a container.

Every such name becomes a path by `below`, which cannot leave its folder.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from local_sagemaker.errors import ValidationError

LONGEST_COMPONENT = 249  # bytes: Linux's 255, less the longest suffix of an unfinished file, `.plain`
LONGEST_PATH = 4095  # bytes: Linux's PATH_MAX without the final NUL


class UnsafePathError(ValidationError):
    """A name that cannot be a path in its folder; the message names it, and the reason."""


def relative(name: str) -> PurePosixPath:
    """A name as a relative path. Raises UnsafePathError unless every component is a plain one.

    Refused are absolute paths, `.` and `..`, empty components, NUL, and what Linux cannot store.
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise UnsafePathError(f"{name!r} cannot be a path: it is not Unicode text") from error
    for component in encoded.split(b"/"):
        if component in {b"", b".", b".."}:
            raise UnsafePathError(
                f"{name!r} leads out of its folder, or is ambiguous: it has the component "
                f"{component.decode()!r} between slashes; rename it"
            )
        if len(component) > LONGEST_COMPONENT:
            raise UnsafePathError(
                f"{name!r} has a component of {len(component)} bytes; the longest possible name of a file "
                f"has {LONGEST_COMPONENT}"
            )
    if b"\0" in encoded:
        raise UnsafePathError(f"{name!r} cannot be a path: it contains NUL")
    return PurePosixPath(name)


def below(folder: Path, name: str) -> Path:
    """The path of `name` in `folder`, which need not exist. Raises UnsafePathError.

    Beside what `relative` refuses, these are paths that are too long, or that a symbolic link on the way
    leads out of the folder.
    """
    path = folder / relative(name)
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UnsafePathError(f"{name!r} is too long for a path below {folder}")
    if not _inside(folder, path):
        raise UnsafePathError(f"{name!r} leads out of its folder: a part of it is a symbolic link")
    return path


def _inside(folder: Path, path: Path) -> bool:
    """Whether the path is in the folder with all links followed, which is only done where there is one."""
    current = os.fspath(folder)
    for component in path.parts[len(folder.parts) :]:
        current += f"/{component}"
        try:
            mode = os.lstat(current).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return True
        if stat.S_ISLNK(mode):
            return _leads_inside(folder, path)
    return True


def _leads_inside(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        return False
