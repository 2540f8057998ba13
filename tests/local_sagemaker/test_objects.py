"""S3 within the process, and its speed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_sagemaker.context import ACCOUNT
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError, Objects, split_uri
from local_sagemaker.s3.state import S3State
from moto.s3.models import s3_backends

FILES = 3060  # images in the pre-cut dataset's training channel


@pytest.fixture
def state(tmp_path: Path) -> Iterator[S3State]:
    _forget()
    state = S3State(tmp_path / "s3")
    with state.lock:
        s3_backend().create_bucket("dogs", "us-east-1")
        state.save_bucket("dogs")
    yield state
    state.close()
    _forget()


@pytest.fixture
def objects(state: S3State) -> Objects:
    return Objects(state)


def _forget() -> None:
    s3_backends[ACCOUNT]["aws"].reset()


def _file(folder: Path, content: bytes) -> Path:
    path = folder / hashlib.sha256(content).hexdigest()
    path.write_bytes(content)
    return path


def test_upload_and_download(objects: Objects, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    objects.upload(_file(tmp_path, content), "s3://dogs/models/m.tar.gz")
    objects.download("s3://dogs/models/m.tar.gz", tmp_path / "deep" / "er" / "m.tar.gz")
    assert (tmp_path / "deep" / "er" / "m.tar.gz").read_bytes() == content
    (info,) = objects.list("s3://dogs/models/")
    assert (info.uri, info.size) == ("s3://dogs/models/m.tar.gz", 3_000_000)
    assert info.etag == hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_upload_survives(objects: Objects, state: S3State, tmp_path: Path) -> None:
    objects.upload(_file(tmp_path, b"weights"), "s3://dogs/kept")
    state.close()
    _forget()
    again = S3State(tmp_path / "s3")
    again.restore()
    Objects(again).download("s3://dogs/kept", tmp_path / "back")
    again.close()
    assert (tmp_path / "back").read_bytes() == b"weights"


def test_listing_is_by_prefix_in_key_order(objects: Objects, tmp_path: Path) -> None:
    file = _file(tmp_path, b"x")
    for key in ("train/b/2", "train/a/1", "training", "valid/a/1"):
        objects.upload(file, f"s3://dogs/{key}")
    assert [info.key for info in objects.list("s3://dogs/train/")] == ["train/a/1", "train/b/2"]
    assert [info.key for info in objects.list("s3://dogs/train")] == ["train/a/1", "train/b/2", "training"]
    assert objects.list("s3://dogs/nothing/") == []
    assert len(objects.list("s3://dogs")) == 4


def test_missing_objects_and_buckets_are_named(objects: Objects, tmp_path: Path) -> None:
    assert not objects.exists("s3://dogs/none")
    assert not objects.exists("s3://cats/none")
    with pytest.raises(ObjectMissingError, match="s3://dogs/none"):
        objects.download("s3://dogs/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(BucketMissingError, match="s3://cats"):
        objects.list("s3://cats/x")
    with pytest.raises(BucketMissingError, match="s3://cats"):
        objects.upload(_file(tmp_path, b"x"), "s3://cats/x")
    with pytest.raises(ValueError, match="needs a key"):
        objects.upload(_file(tmp_path, b"x"), "s3://dogs")


@pytest.mark.parametrize("uri", ["dogs/train", "s3:/dogs/train", "s3://", "https://dogs/train"])
def test_an_invalid_uri_is_named(uri: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/key"):
        split_uri(uri)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://dogs", ("dogs", "")),
        ("s3://dogs/", ("dogs", "")),
        ("s3://dogs/a/b c?#d", ("dogs", "a/b c?#d")),
        ("s3://dogs//a", ("dogs", "/a")),
    ],
)
def test_keys_are_taken_as_they_are(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


def test_blobs_without_an_object_are_swept(objects: Objects, tmp_path: Path) -> None:
    objects.upload(_file(tmp_path, b"kept"), "s3://dogs/kept")
    half = tmp_path / "s3" / "blobs" / "ab" / ("ab" * 16)
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half a mod")
    again = S3State(tmp_path / "s3")
    again.restore()
    again.close()
    assert not half.exists()
    assert Objects(again).exists("s3://dogs/kept")


def test_a_dataset_of_3060_files_is_listed_and_downloaded_whole(objects: Objects, tmp_path: Path) -> None:
    images = [_file(tmp_path, os.urandom(8_000)) for _ in range(10)]
    for number in range(FILES):
        objects.upload(images[number % 10], f"s3://dogs/train/{number % 133:03}/{number:05}.jpg")

    listed = objects.list("s3://dogs/train/")
    for info in listed:
        objects.download(info.uri, tmp_path / "channel" / info.key)
    assert len(listed) == FILES
    downloaded = [path for path in (tmp_path / "channel").rglob("*.jpg") if path.stat().st_size == 8_000]
    assert len(downloaded) == FILES
