"""Channels: which objects go where, and the cache behind them."""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from local_sagemaker.channels import ChannelError, ObjectCache, provide
from local_sagemaker.s3.moto_backend import s3_backend
from local_sagemaker.s3.objects import ObjectMissingError, Objects
from local_sagemaker.s3.state import S3State

_numbers = itertools.count()


class CountingObjects(Objects):
    """Objects that count downloads; the first `full` of them find a full disk."""

    def __init__(self, state: S3State) -> None:
        super().__init__(state)
        self.downloads: list[str] = []
        self.full = 0

    def download(self, uri: str, path: Path) -> None:
        if self.full:
            self.full -= 1
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self.downloads.append(uri)
        super().download(uri, path)


class Bench:
    """A bucket with a cache in front, and channels of jobs below `root`."""

    def __init__(self, root: Path, state: S3State) -> None:
        self.root = root
        self.bucket = f"channel-bucket-{next(_numbers)}"
        self.objects = CountingObjects(state)
        self.cache = ObjectCache(root / "cache", self.objects)
        self._state = state
        s3_backend().create_bucket(self.bucket, "us-east-1")

    def put(self, contents: Mapping[str, bytes]) -> None:
        for key, content in contents.items():
            self._state.put(self.bucket, key, io.BytesIO(content))

    def provide(self, prefix: str, job: str = "job", kind: str = "S3Prefix", **members: str) -> int:
        """Fill the job's channel and return the number of files."""
        source = {"S3DataType": kind, "S3Uri": f"s3://{self.bucket}/{prefix}"}
        channel = {"ChannelName": "train", "DataSource": {"S3DataSource": source}, **members}
        return provide(channel, self.root / job, self.objects, self.cache)

    def files(self, job: str = "job") -> dict[str, bytes]:
        folder = self.root / job
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    state = S3State(tmp_path / "s3")
    yield Bench(tmp_path, state)
    state.close()


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("data/train", {"a/1.jpg", "b.jpg"}),
        ("data/train/", {"a/1.jpg", "b.jpg"}),
        ("data/train/a/1.jpg", {"1.jpg"}),
        ("data/tr", {"train/a/1.jpg", "train/b.jpg"}),
        ("", {"data/train/a/1.jpg", "data/train/b.jpg"}),
    ],
)
def test_keys_lose_their_prefix(bench: Bench, prefix: str, expected: set[str]) -> None:
    bench.put({"data/train/": b"", "data/train/a/1.jpg": b"1", "data/train/b.jpg": b"2"})
    assert bench.provide(prefix) == len(expected)
    assert bench.files().keys() == expected


def test_an_object_is_downloaded_once_and_then_linked(bench: Bench) -> None:
    bench.put({"d/1": b"one", "d/2": b"two", "d/same-as-1": b"one"})
    for job in ("first", "second", "second"):
        bench.provide("d", job)
    assert bench.files("second") == {"1": b"one", "2": b"two", "same-as-1": b"one"}
    assert len(bench.objects.downloads) == 2
    assert (bench.root / "first/1").samefile(bench.root / "second/same-as-1")


def test_new_content_of_a_key_is_downloaded(bench: Bench) -> None:
    for content in (b"one", b"two"):
        bench.put({"d/1": content})
        bench.provide("d")
        assert bench.files() == {"1": content}


@pytest.mark.parametrize("spoiled", [b"TWO", b"longer than before"])
def test_a_file_that_a_job_altered_is_downloaded_again(bench: Bench, spoiled: bytes) -> None:
    bench.put({"d/1": b"one"})
    bench.provide("d", "first")
    altered = bench.root / "first/1"
    altered.chmod(0o644)
    altered.write_bytes(spoiled)
    bench.provide("d", "second")
    assert bench.files("second") == {"1": b"one"}
    assert altered.read_bytes() == spoiled


def test_inputs_are_read_only(bench: Bench) -> None:
    bench.put({"d/1": b"one"})
    bench.provide("d")
    assert (bench.root / "job/1").stat().st_mode & 0o777 == 0o444


def test_parallel_jobs_share_the_downloads(bench: Bench) -> None:
    bench.put({f"d/{number}": str(number).encode() for number in range(100)})
    jobs = [f"job-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda job: bench.provide("d", job), jobs)) == [100] * 4
    assert all(len(bench.files(job)) == 100 for job in jobs)
    assert len(bench.objects.downloads) == 100


def test_a_manifest_names_the_objects(bench: Bench) -> None:
    manifest = [{"prefix": f"s3://{bench.bucket}/d/"}, "a/1", "2"]
    bench.put({"d/a/1": b"1", "d/2": b"2", "d/3": b"3", "list.manifest": json.dumps(manifest).encode()})
    bench.provide("list.manifest", kind="ManifestFile")
    assert bench.files() == {"a/1": b"1", "2": b"2"}


def test_gzip_is_unpacked(bench: Bench) -> None:
    bench.put({"d/1": gzip.compress(b"plain")})
    for job in ("first", "second"):
        bench.provide("d", job, CompressionType="Gzip")
        assert bench.files(job) == {"1": b"plain"}


@pytest.mark.parametrize(
    ("contents", "kind", "words"),
    [
        ({"d/a": b"1", "d/a/b": b"2"}, "S3Prefix", "both an object and a folder"),
        ({"d/../../etc/passwd": b"1"}, "S3Prefix", "the key 'd/../../etc/passwd' .* leads out of its folder"),
        ({"d//b": b"1"}, "S3Prefix", "the key 'd//b' .* has the component ''"),
        ({"d/a\0b": b"1"}, "S3Prefix", "contains NUL"),
        ({f"d/{'x' * 250}": b"1"}, "S3Prefix", "250 bytes"),
        ({"d": b"not json"}, "ManifestFile", "is not a manifest"),
        ({"d": b"1"}, "AugmentedManifestFile", "S3DataType AugmentedManifestFile is not supported"),
    ],
)
def test_data_that_cannot_be_provided(
    bench: Bench, contents: dict[str, bytes], kind: str, words: str
) -> None:
    bench.put(contents)
    with pytest.raises(ChannelError, match=words):
        bench.provide("d", kind=kind)


def test_a_broken_gzip_file_is_named(bench: Bench) -> None:
    bench.put({"d/1": gzip.compress(b"plain")[:-6]})
    with pytest.raises(ChannelError, match="1 is not a complete gzip file"):
        bench.provide("d", CompressionType="Gzip")


def test_an_empty_prefix_is_named(bench: Bench) -> None:
    with pytest.raises(ObjectMissingError, match=f"no object under s3://{bench.bucket}/d"):
        bench.provide("d")


def test_on_a_full_disk_unused_files_are_evicted(bench: Bench) -> None:
    bench.put({"old/1": b"old", "used/1": b"used", "new/1": b"new"})
    bench.provide("old", "old")
    bench.provide("used", "used")
    (bench.root / "old/1").unlink()
    bench.objects.full = 1
    bench.provide("new", "new")
    assert bench.files("new") == {"1": b"new"}
    bench.provide("used", "again")
    assert len(bench.objects.downloads) == 3


def test_a_disk_that_stays_full_is_an_error(bench: Bench) -> None:
    bench.put({"d/1": b"one"})
    bench.objects.full = 2
    with pytest.raises(OSError, match="No space left") as caught:
        bench.provide("d")
    assert caught.value.errno == errno.ENOSPC
