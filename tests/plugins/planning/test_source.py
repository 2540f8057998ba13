"""The training code's archive: deterministic, complete, uploaded once."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.config.source import source_folder
from retraining.errors import PlanError
from retraining.planning.source import digest_of, pack, upload

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "debugger").mkdir(parents=True)
    (folder / "train.py").write_text("print('train')\n")
    (folder / "debugger" / "rules.py").write_text("RULES = ()\n")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "train.pyc").write_bytes(b"x")
    (folder / ".hidden").write_text("x")
    return folder


def test_the_archive_holds_the_code_and_nothing_else(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(folder))) as archive:
        assert archive.getnames() == ["debugger/rules.py", "train.py"]
        member = archive.extractfile("train.py")
        assert member is not None
        assert member.read() == b"print('train')\n"


def test_equal_content_gives_equal_bytes(folder: Path) -> None:
    content, digest = pack(folder), digest_of(folder)
    os.utime(folder / "train.py", (1, 1))
    (folder / "train.py").chmod(0o600)
    (folder / "__pycache__" / "other.pyc").write_bytes(b"y")
    assert (pack(folder), digest_of(folder)) == (content, digest)


def test_any_change_changes_the_digest(folder: Path) -> None:
    digest = digest_of(folder)
    (folder / "train.py").rename(folder / "trains.py")
    renamed = digest_of(folder)
    (folder / "trains.py").write_text("print('other')\n")
    assert len({digest, renamed, digest_of(folder)}) == 3


def test_equal_code_is_uploaded_once(folder: Path, aws: Aws) -> None:
    digest = digest_of(folder)
    uri = upload(aws.s3, folder, digest, BUCKET, "code")
    assert uri == f"s3://{BUCKET}/code/{digest}/sourcedir.tar.gz"
    key = uri.removeprefix(f"s3://{BUCKET}/")
    written = aws.s3.head_object(Bucket=BUCKET, Key=key)["LastModified"]
    assert upload(aws.s3, folder, digest, BUCKET, "code") == uri
    assert aws.s3.head_object(Bucket=BUCKET, Key=key)["LastModified"] == written


def _other_gzip(folder: Path) -> bytes:
    """The same contents, compressed as another version of zlib might do."""
    return gzip.compress(gzip.decompress(pack(folder)), compresslevel=1)


@pytest.mark.parametrize(
    "forge",
    [
        lambda _: b"",
        lambda _: b"no gzip",
        lambda folder: pack(folder)[:-20],
        lambda folder: pack(folder) + gzip.compress(b"more"),
        lambda folder: pack(folder)[:-1] + b"x",
        lambda _: archive(train="print('owned')"),
        lambda _: gzip.compress(b"0" * 50_000_000),
        lambda _: os.urandom(5_000_000),
    ],
)
def test_code_under_a_forged_name_is_replaced(
    folder: Path, aws: Aws, forge: Callable[[Path], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    digest = digest_of(folder)
    there: Any = {"Bucket": BUCKET, "Key": f"forged/{digest}/sourcedir.tar.gz"}
    aws.s3.put_object(
        **there, Body=forge(folder), Metadata={"sha256": hashlib.sha256(pack(folder)).hexdigest()}
    )
    upload(aws.s3, folder, digest, BUCKET, "forged")
    assert aws.s3.get_object(**there)["Body"].read() == pack(folder)
    assert "did not hold the code" in caplog.text


def test_the_same_code_compressed_otherwise_stays(
    folder: Path, aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    digest = digest_of(folder)
    there: Any = {"Bucket": BUCKET, "Key": f"zlib/{digest}/sourcedir.tar.gz"}
    other = _other_gzip(folder)
    aws.s3.put_object(**there, Body=other)
    upload(aws.s3, folder, digest, BUCKET, "zlib")
    assert aws.s3.get_object(**there)["Body"].read() == other
    assert "did not hold" not in caplog.text


def test_the_folder_can_be_named_and_must_hold_the_script(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_folder().name == "sagemaker_code"
    monkeypatch.setenv("RETRAINING_SOURCE_DIR", str(folder))
    assert source_folder() == folder
    monkeypatch.setenv("RETRAINING_SOURCE_DIR", str(tmp_path))
    with pytest.raises(PlanError, match="Set RETRAINING_SOURCE_DIR"):
        source_folder()
