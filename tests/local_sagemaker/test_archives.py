"""Unpacking archives from users: usual ones, and those that have attacked other programs."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_sagemaker.archives import ArchiveError, unpack

from local_sagemaker import archives

Entry = tuple[str, bytes, str]
"""A member: name, type and link target."""


def file(name: str) -> Entry:
    return name, tarfile.REGTYPE, ""


def symlink(name: str, target: str) -> Entry:
    return name, tarfile.SYMTYPE, target


def hardlink(name: str, target: str) -> Entry:
    return name, tarfile.LNKTYPE, target


def packed(folder: Path, entries: Sequence[Entry], *, mode: int = 0o644) -> Path:
    """An archive of these members, files with the content `text`."""
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, target in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, mode
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"text") if member.size else None)
    return path


@pytest.fixture(params=["filtered", "without Python's filter"], autouse=True)
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What protects is ours: everything holds without the filter, which Python has from 3.11.4 on."""
    if request.param != "filtered":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where to unpack. A secret lies beside it."""
    (tmp_path / "secret").write_text("untouched")
    return tmp_path / "folder"


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["code/train.py", "./code/train.py", "code//train.py"])
def test_files_are_unpacked(tmp_path: Path, folder: Path, name: str) -> None:
    unpack(
        packed(tmp_path, [("./", tarfile.DIRTYPE, ""), ("code/", tarfile.DIRTYPE, ""), file(name)]), folder
    )
    assert contents(folder) == {"code/train.py": "text"}


def test_links_that_stay_inside_are_kept(tmp_path: Path, folder: Path) -> None:
    entries = [
        file("v1/weights"),
        symlink("current", "v1"),
        symlink("code/weights", "../v1/weights"),
        hardlink("copy", "v1/weights"),
    ]
    unpack(packed(tmp_path, entries), folder)
    assert (folder / "current").readlink() == Path("v1")
    assert (folder / "code/weights").read_text() == (folder / "copy").read_text() == "text"


def test_files_belong_to_this_user_alone(tmp_path: Path, folder: Path) -> None:
    unpack(packed(tmp_path, [file("script")], mode=0o6777), folder)
    status = (folder / "script").stat()
    assert status.st_mode & 0o7777 == 0o755
    assert status.st_uid == os.getuid()


DEEP = "d" * 240
ATTACKS = {
    "a path that leads out": [file("../secret")],
    "a path that leads out at its end": [file("a/../../secret")],
    "an absolute path": [file("/tmp/secret")],  # noqa: S108
    "an absolute link": [symlink("link", "/etc/passwd")],
    "a link that leads out": [symlink("a/link", "../../secret")],
    "a link to the folder above": [symlink("link", "..")],
    "writing through a link": [symlink("link", "a"), file("link/b")],
    "writing through a link that comes later": [file("link/b"), symlink("link", "a")],
    "writing to a link": [symlink("link", "a"), file("link")],
    "a link replaced by another": [symlink("link", "a"), symlink("link", "b")],
    "a link instead of a folder": [("a", tarfile.DIRTYPE, ""), symlink("a", "b"), file("a/c")],
    # CVE-2025-4517 and -4330: a chain of links that looks as if it stayed inside
    "a link through a link and up": [symlink("here", "."), symlink("out", "here/../secret")],
    "a link past the longest path": [
        *(symlink("/".join([DEEP] * depth + ["a"]), DEEP) for depth in range(16)),
        symlink("/".join(["a"] * 16 + ["l" * 254]), "../" * 16),
        symlink("escape", "/".join(["a"] * 16 + ["l" * 254]) + "/../secret"),
        file("escape"),
    ],
    # CVE-2025-4138: a link that the filter let through, by a name that it normalised
    "a link under a name with dots": [symlink("a/../link", "../secret")],
    "a hard link that leads out": [hardlink("link", "../secret")],
    "an absolute hard link": [hardlink("link", "/etc/passwd")],
    "a hard link to nothing": [hardlink("link", "missing")],
    "a hard link to a link": [symlink("link", "a"), hardlink("hard", "link")],
    "a file as a folder": [file("a"), file("a/b")],
    "a device": [("null", tarfile.CHRTYPE, "")],
    "a pipe": [("pipe", tarfile.FIFOTYPE, "")],
    "a name that is too long": [file("x" * 250)],
    "an empty link": [symlink("link", "")],
}


@pytest.mark.parametrize("entries", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused_and_nothing_written(tmp_path: Path, folder: Path, entries: list[Entry]) -> None:
    archive = packed(tmp_path, [file("first"), *entries])
    with pytest.raises(ArchiveError):
        unpack(archive, folder)
    assert contents(folder) == {}
    assert (tmp_path / "secret").read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar.gz", "folder", "secret"]


NAMES = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(NAMES.map(file), st.builds(symlink, NAMES, NAMES), st.builds(hardlink, NAMES, NAMES))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES, min_size=1, max_size=6))
def test_whatever_is_unpacked_stays_inside(tmp_path: Path, folder: Path, entries: list[Entry]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    archive = packed(tmp_path, entries)
    with contextlib.suppress(tarfile.TarError, OSError):
        unpack(archive, folder)
    inside = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and loops(path):
            continue
        assert Path(os.path.realpath(path)).is_relative_to(inside), f"{path} leads out: {entries}"
    assert (tmp_path / "secret").read_text() == "untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar.gz", "folder", "secret"]


def loops(link: Path) -> bool:
    """Whether a link leads back to itself, and so to nothing."""
    try:
        link.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def header(name: str, kind: bytes, size: int) -> bytes:
    """A member's header, whatever size it claims."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


BOMBS = {
    "a huge file": (header("bomb", tarfile.REGTYPE, 2**50), "1,125,899,906,842,624|more than"),
    "a huge name": (header("bomb", tarfile.GNUTYPE_LONGNAME, 2**40), "1099511627776 bytes"),
    "a huge attribute": (header("bomb", tarfile.XHDTYPE, 2**40), "1099511627776 bytes"),
    # CVE-2025-8194: reading went backwards for ever
    "a negative size": (header("bomb", tarfile.REGTYPE, -512), "-512 bytes"),
    "a negative size in an attribute": (
        tarfile.TarInfo.create_pax_global_header({"size": "-1024"}) + header("bomb", tarfile.REGTYPE, 0),
        "-1024 bytes",
    ),
    "attributes of attributes": (header("x", tarfile.XHDTYPE, 0) * 5000, "damaged"),
    "a sparse file": (header("bomb", tarfile.GNUTYPE_SPARSE, 0), "neither a plain file"),
}


@pytest.mark.parametrize(("content", "words"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_is_read(
    tmp_path: Path, folder: Path, content: bytes, words: str
) -> None:
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(content + b"\0" * 1024))
    with pytest.raises(ArchiveError, match=words):
        unpack(tmp_path / "bomb.tar.gz", folder)
    assert contents(folder) == {}


def test_the_number_of_members_is_bounded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    unpack(packed(tmp_path, [file(str(number)) for number in range(10)]), folder)
    with pytest.raises(ArchiveError, match="more than 10 members"):
        unpack(packed(tmp_path, [file(str(number)) for number in range(11)]), folder)


def test_what_does_not_fit_onto_the_disk_is_not_begun(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
    with pytest.raises(OSError, match="No space left") as caught:
        unpack(packed(tmp_path, [file("a"), file("b")]), folder)
    assert caught.value.errno == errno.ENOSPC
    assert contents(folder) == {}


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-20], lambda whole: whole[:60] + b"\xff" * 40, bytes.lower]
)
def test_a_damaged_archive_is_named_so(
    tmp_path: Path, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    archive = packed(tmp_path, [file("a"), file("b")])
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(tarfile.TarError):
        unpack(archive, folder)
