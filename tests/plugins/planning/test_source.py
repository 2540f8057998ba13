"""The training code's archive: deterministic, complete, uploaded once."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from retraining.aws.clients import Aws
from retraining.errors import PlanError
from retraining.planning.source import digest_of, pack, source_folder, upload

from tests.dags.airflow_home import BUCKET


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


def test_the_folder_can_be_named_and_must_hold_the_script(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source_folder().name == "sagemaker_code"
    monkeypatch.setenv("RETRAINING_SOURCE_DIR", str(folder))
    assert source_folder() == folder
    monkeypatch.setenv("RETRAINING_SOURCE_DIR", str(tmp_path))
    with pytest.raises(PlanError, match="Set RETRAINING_SOURCE_DIR"):
        source_folder()
