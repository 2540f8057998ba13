"""Unpacking with and without the standard library's filter."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from local_sagemaker.archives import unpack


def archive(name: str, *, link: str = "") -> tarfile.TarFile:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        if link:
            member.type, member.linkname = tarfile.SYMTYPE, link
        else:
            member.size = 4
        tar.addfile(member, None if link else io.BytesIO(b"text"))
    packed.seek(0)
    return tarfile.open(fileobj=packed)


@pytest.fixture(params=[True, False], ids=["3.11.4 and later", "before 3.11.4"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.usefixtures("python")
def test_files_are_unpacked(tmp_path: Path) -> None:
    with archive("code/train.py") as tar:
        unpack(tar, tmp_path)
    assert (tmp_path / "code" / "train.py").read_text() == "text"


@pytest.mark.usefixtures("python")
@pytest.mark.parametrize(("name", "link"), [("../outside", ""), ("inside", "/etc/passwd")])
def test_nothing_leaves_the_folder(tmp_path: Path, name: str, link: str) -> None:
    with archive(name, link=link) as tar, pytest.raises(tarfile.TarError):
        unpack(tar, tmp_path / "folder")
    assert not (tmp_path / "outside").exists()
