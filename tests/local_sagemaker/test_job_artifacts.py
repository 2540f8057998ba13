"""Archives and folders that are kept in S3."""

from __future__ import annotations

import itertools
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_sagemaker.channels import ChannelError
from local_sagemaker.jobs.artifacts import FolderSync, join_uri, pack, upload_packed
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.objects import Objects
from local_sagemaker.s3.state import S3State

_numbers = itertools.count()


class RecordingObjects(Objects):
    """Objects that record the keys of uploads in order."""

    def __init__(self, state: S3State) -> None:
        super().__init__(state)
        self.uploads: list[str] = []

    def upload(self, path: Path, uri: str) -> None:
        super().upload(path, uri)
        self.uploads.append(uri.partition("/sync/")[2])


@pytest.fixture
def objects(tmp_path: Path) -> Iterator[RecordingObjects]:
    state = S3State(tmp_path / "s3")
    yield RecordingObjects(state)
    state.close()


@pytest.fixture
def uri() -> str:
    name = f"artifact-bucket-{next(_numbers)}"
    s3_backend().create_bucket(name, "us-east-1")
    return f"s3://{name}/sync"


def write(path: Path, text: str, age: float = 10) -> None:
    """Write a file with a modification time `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age, time.time() - age))


def test_equal_folders_give_equal_archives(tmp_path: Path) -> None:
    for name, order in (("one", ["b", "a"]), ("two", ["a", "b"])):
        for file in order:
            write(tmp_path / name / "code" / file, file, age=len(name + file))
        pack(tmp_path / name, tmp_path / f"{name}.tar.gz")
        time.sleep(0.01)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        assert tar.getnames() == ["code", "code/a", "code/b"]


def test_an_empty_folder_leaves_no_archive(tmp_path: Path, objects: RecordingObjects, uri: str) -> None:
    (tmp_path / "model").mkdir()
    upload_packed(tmp_path / "model", join_uri(uri, "model.tar.gz"), tmp_path / "work", objects)
    upload_packed(tmp_path / "missing", join_uri(uri, "model.tar.gz"), tmp_path / "work", objects)
    assert objects.uploads == []


def test_only_changed_files_are_uploaded(tmp_path: Path, objects: RecordingObjects, uri: str) -> None:
    folder = tmp_path / "folder"
    sync = FolderSync(folder, uri, objects)
    assert sync.sync() == 0
    write(folder / "a" / "1", "one")
    write(folder / "2", "two")
    assert sync.sync() == 2
    assert sync.sync() == 0
    write(folder / "2", "changed", age=5)
    assert sync.sync() == 1
    assert objects.uploads == ["2", "a/1", "2"]


def test_a_file_that_is_being_written_waits(tmp_path: Path, objects: RecordingObjects, uri: str) -> None:
    folder = tmp_path / "folder"
    sync = FolderSync(folder, uri, objects)
    write(folder / "fresh", "half", age=0)
    write(folder / "part.tmp", "half")
    assert sync.sync() == 0
    assert sync.sync(final=True) == 1
    assert objects.uploads == ["fresh"]


def test_an_index_is_uploaded_after_the_files_it_names(
    tmp_path: Path, objects: RecordingObjects, uri: str
) -> None:
    folder = tmp_path / "tensors"
    write(folder / "index" / "0.json", "{}")
    write(folder / "zzz" / "0.tfevents", "")
    FolderSync(folder, uri, objects).sync()
    assert objects.uploads == ["zzz/0.tfevents", "index/0.json"]


def test_downloaded_files_are_not_uploaded_again(tmp_path: Path, objects: RecordingObjects, uri: str) -> None:
    write(tmp_path / "old" / "epoch" / "1.pt", "one")
    FolderSync(tmp_path / "old", uri, objects).sync()
    sync = FolderSync(tmp_path / "new", uri, objects)
    assert sync.download() == 1
    assert (tmp_path / "new" / "epoch" / "1.pt").read_text() == "one"
    assert sync.sync(final=True) == 0


def test_a_key_that_leads_out_of_the_folder_is_refused(
    tmp_path: Path, objects: RecordingObjects, uri: str
) -> None:
    write(tmp_path / "file", "evil")
    objects.upload(tmp_path / "file", f"{uri}/../../evil")
    with pytest.raises(ChannelError, match="leads out of"):
        FolderSync(tmp_path / "new", uri, objects).download()
