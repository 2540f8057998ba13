"""Unpacks tar archives from users: no member may be written outside the folder, or be too large."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from local_sagemaker.paths import UnsafePathError, relative

MOST_MEMBERS = 100_000
MOST_BYTES = 32 * 2**30  # of all files together; AWS's images hold models of up to a few GB
MOST_HEADER_BYTES = 256 * 2**10  # of a name or attribute beside a member, which tarfile reads into memory

_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


class ArchiveError(tarfile.TarError):
    """An archive that is damaged or must not be unpacked; the message names the member and the reason."""


def unpack(archive: Path, folder: Path) -> None:
    """Extract everything into `folder`, which is created if necessary; where a member is refused, nothing is.

    Allowed are files, folders, and links that stay in the folder. Python's own filter `data` runs as well,
    but is not relied on: Python 3.11.2 lacks it, and 3.11.7 the corrections of CVE-2024-12718 and
    CVE-2025-4138, -4330, -4435, -4517 and -8194. Raises ArchiveError, or OSError, for a full disk too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, tarinfo=_Member) as tar:
            members = _Checked(shutil.disk_usage(folder).free).all(tar)
            if hasattr(tarfile, "data_filter"):
                tar.extractall(folder, members, filter="data")
            else:
                tar.extractall(folder, members)  # noqa: S202 - every member was checked above
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, RecursionError) as error:
        raise ArchiveError(f"it is damaged or cut off: {error}") from error


class _Member(tarfile.TarInfo):
    """A header that cannot make tarfile read without end, or much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        _check_size(member)
        return member


class _Checked:
    """The members of an archive, and what each path is: `file`, `folder` or `link`."""

    def __init__(self, free_bytes: int) -> None:
        self._free_bytes = free_bytes
        self._kinds: dict[PurePosixPath, str] = {}
        self._bytes = 0

    def all(self, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
        """Every member, unless one is refused. Raises ArchiveError, or OSError where they do not fit."""
        members: list[tarfile.TarInfo] = []
        for member in tar:  # reads one header at a time, so that a refusal comes before the rest is read
            self._count(member, len(members) + 1)
            path = _path(member.name, member)
            if path.parts:
                self._add(path, member)
                members.append(_own(member))
        for path in self._kinds:
            self._check_parents(path)
        return members

    def _count(self, member: tarfile.TarInfo, number: int) -> None:
        _check_size(member)
        self._bytes += member.size
        if number > MOST_MEMBERS:
            raise ArchiveError(f"it has more than {MOST_MEMBERS:,} members")
        if self._bytes > MOST_BYTES:
            raise ArchiveError(f"with {member.name!r} its files have more than {MOST_BYTES:,} bytes")
        if self._bytes > self._free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), member.name)

    def _add(self, path: PurePosixPath, member: tarfile.TarInfo) -> None:
        kind, before = self._kind(path, member), self._kinds.get(path)
        if before is not None and (before != kind or kind == "link"):
            raise ArchiveError(f"{member.name!r} is in it twice, as a {before} and as a {kind}")
        self._kinds[path] = kind

    def _kind(self, path: PurePosixPath, member: tarfile.TarInfo) -> str:
        if member.isdir():
            return "folder"
        if member.issym():
            _check_link(path, member)
            return "link"
        if member.islnk():
            if self._kinds.get(_path(member.linkname, member)) != "file":
                raise ArchiveError(
                    f"{member.name!r} links to {member.linkname!r}, which is no file before it"
                )
            return "file"
        if member.isfile() and not member.issparse():
            return "file"
        raise ArchiveError(f"{member.name!r} is neither a plain file, a folder nor a link")

    def _check_parents(self, path: PurePosixPath) -> None:
        for parent in path.parents:
            if (kind := self._kinds.get(parent, "folder")) != "folder":
                raise ArchiveError(f"'{path}' would lie below '{parent}', which is a {kind}")


def _path(name: str, member: tarfile.TarInfo) -> PurePosixPath:
    """A member's path in the folder; empty for the folder itself, which archives name `./`."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    try:
        return relative("/" if name.startswith("/") else "/".join(parts)) if parts else PurePosixPath()
    except UnsafePathError as error:
        raise ArchiveError(f"{member.name!r} would lie outside of the folder: {error}") from error


def _check_link(path: PurePosixPath, member: tarfile.TarInfo) -> None:
    """Refuse a symbolic link that leads out of the folder.

    A target first leads up, then down: where `..` came after a name, that could be another link. No member
    lies below a link, so that the way up is the one that the path shows.
    """
    parts = PurePosixPath(member.linkname).parts
    down = [part for part in parts if part != ".."]
    up = len(parts) - len(down)
    if not parts or parts[0] == "/" or parts[up:] != tuple(down) or up >= len(path.parts):
        raise ArchiveError(f"{member.name!r} links to {member.linkname!r}, outside of the folder")
    if down:
        _path("/".join(down), member)


def _check_size(member: tarfile.TarInfo) -> None:
    if member.size < 0 or (member.type in _EXTENSIONS and member.size > MOST_HEADER_BYTES):
        raise ArchiveError(f"the header of {member.name!r} says that it has {member.size} bytes")


def _own(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member as a file of this user: nothing special, nothing for others to write."""
    member.mode = member.mode & 0o755 | (0o700 if member.isdir() else 0o600)
    member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
    return member
