"""Weights files: their tensors' names, read without running a pickle, and which architecture they fit."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from retraining.aws.clients import Aws
from retraining.errors import PlanError
from retraining.planning.weights import check_weights, find_weights, tensor_names

from tests.dags.airflow_home import BUCKET, REPOSITORY

RESNET18 = ("conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv2.weight", "fc.weight", "fc.bias")
SHARED_DATA = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
SQUEEZENET = SHARED_DATA / "weights" / "squeezenet1_0.pth"


def safetensors(names: tuple[str, ...]) -> bytes:
    header = json.dumps(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in names}
    ).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * 4


def zipped(names: tuple[str, ...]) -> bytes:
    """As torch.save writes it, with other values than tensors."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(dict.fromkeys(names, 0), protocol=2))
        archive.writestr("archive/data/0", b"\0" * 64)
    return buffer.getvalue()


def legacy(names: tuple[str, ...]) -> bytes:
    """As torch wrote it before 1.6: magic number, version, platform, and the state dict, one pickle each."""
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, dict.fromkeys(names, 0))
    return b"".join(pickle.dumps(part, protocol=2) for part in parts) + b"\0" * 64


@pytest.mark.parametrize(
    ("name", "write"), [("w.safetensors", safetensors), ("w.pth", zipped), ("w.pt", legacy)]
)
def test_names_are_read_from_every_format(name: str, write: object) -> None:
    content = write(RESNET18)  # type: ignore[operator]
    assert tensor_names(io.BytesIO(content), name) == set(RESNET18)
    check_weights(io.BytesIO(content), name, "resnet18")


def test_another_architecture_is_named() -> None:
    with pytest.raises(PlanError, match=r"does not hold weights of resnet50: it looks like resnet18"):
        check_weights(io.BytesIO(zipped(RESNET18)), "w.pth", "resnet50")


def test_an_architecture_without_signature_is_left_to_training() -> None:
    check_weights(io.BytesIO(zipped(RESNET18)), "w.pth", "maxvit_t")


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04cut off", zipped(("a", "b"))])
def test_what_is_no_weights_file_is_refused(content: bytes) -> None:
    with pytest.raises(PlanError, match="cannot be read as weights"):
        check_weights(io.BytesIO(content), "w.pth", "resnet18")


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, safetensors(RESNET18)[:40]])
def test_what_is_no_safetensors_file_is_refused(content: bytes) -> None:
    with pytest.raises(PlanError, match="cannot be read as weights"):
        check_weights(io.BytesIO(content), "w.safetensors", "resnet18")


def test_a_pickle_in_the_file_is_not_run() -> None:
    class Boom:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, ("ran",))

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"fc.weight": Boom()}, protocol=2))
    assert tensor_names(io.BytesIO(buffer.getvalue()), "w.pth") == {"fc.weight"}
    assert not Path("ran").exists()


@pytest.mark.skipif(not SQUEEZENET.exists(), reason=f"{SQUEEZENET} is not there")
def test_real_weights_are_recognised_in_s3(aws: Aws) -> None:
    aws.s3.upload_file(str(SQUEEZENET), BUCKET, "real/squeezenet1_0/squeezenet1_0.pth")
    uri = find_weights(aws.s3, BUCKET, "real", "squeezenet1_0")
    assert uri == f"s3://{BUCKET}/real/squeezenet1_0/squeezenet1_0.pth"
    aws.s3.upload_file(str(SQUEEZENET), BUCKET, "real/squeezenet1_1/squeezenet1_0.pth")
    with pytest.raises(PlanError, match="it looks like squeezenet1_0"):
        find_weights(aws.s3, BUCKET, "real", "squeezenet1_1")


def test_no_file_means_no_weights_and_two_are_too_many(aws: Aws) -> None:
    assert find_weights(aws.s3, BUCKET, "none", "resnet18") is None
    for name in ("a.pth", "b.pth"):
        aws.s3.put_object(Bucket=BUCKET, Key=f"two/resnet18/{name}", Body=zipped(RESNET18))
    with pytest.raises(PlanError, match="holds 2 files"):
        find_weights(aws.s3, BUCKET, "two", "resnet18")
    aws.s3.put_object(Bucket=BUCKET, Key="txt/resnet18/readme.txt", Body=b"x")
    with pytest.raises(PlanError, match="no weights file"):
        find_weights(aws.s3, BUCKET, "txt", "resnet18")
