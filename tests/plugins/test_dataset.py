"""The check of the data set, against pictures in a real S3."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from PIL import Image
from retraining.aws import Aws
from retraining.dataset import check_dataset, picture_problem
from retraining.errors import DatasetError
from retraining.pipeline import Pipeline

from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import MakeSettings, dataset_files, picture

Upload = Callable[[str, dict[str, bytes]], None]


@pytest.fixture
def check(pipeline: Pipeline, make_settings: MakeSettings, aws: Aws) -> Callable[[str], dict[str, object]]:
    return lambda prefix: check_dataset(pipeline, make_settings(dataset_prefix=prefix), aws)


Check = Callable[[str], dict[str, object]]


def test_a_sound_data_set_is_counted(check: Check, upload: Upload) -> None:
    upload("sound", {**dataset_files(), "train/001.Red/.DS_Store": b"x", "README.txt": b"x"})
    assert check("sound") == {
        "uri": f"s3://{BUCKET}/sound",
        "bucket": BUCKET,
        "prefix": "sound",
        "classes": ["001.Red", "002.Blue"],
        "images": {"train": 6, "valid": 6, "test": 6},
        "counts": {split: {"001.Red": 3, "002.Blue": 3} for split in ("train", "valid", "test")},
    }


def test_an_s3_uri_names_another_bucket(check: Check, upload: Upload) -> None:
    upload("elsewhere/deep", dataset_files())
    assert check(f"s3://{BUCKET}/elsewhere/deep/")["images"] == {"train": 6, "valid": 6, "test": 6}
    with pytest.raises(DatasetError, match="The bucket no-such-bucket does not exist"):
        check("s3://no-such-bucket/x")


def test_an_empty_prefix_says_what_belongs_there(check: Check) -> None:
    with pytest.raises(DatasetError, match=r"There is no picture under s3://.*/nothing/\. Upload"):
        check("nothing")


def test_files_that_cannot_be_decoded_are_all_listed(check: Check, upload: Upload) -> None:
    files = dataset_files()
    files["train/001.Red/0.jpg"] = files["train/001.Red/0.jpg"][:-200]
    files["valid/002.Blue/1.jpg"] = b"no image at all"
    files["test/002.Blue/2.jpg"] = b""
    upload("damaged", files)
    with pytest.raises(DatasetError) as caught:
        check("damaged")
    text = str(caught.value)
    assert "damaged/train/001.Red/0.jpg: is damaged or cut off" in text
    assert "damaged/valid/002.Blue/1.jpg: is no image" in text
    assert "damaged/test/002.Blue/2.jpg: is empty" in text
    assert "replace or delete these files" in text


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "stranger",
            {"valid/003.Green/1.jpg": picture()},
            "valid/003.Green/: the class is absent from train/",
        ),
        ("empty", {"train/003.Green/": b""}, "train/003.Green/: is empty"),
        (
            "few",
            {f"{s}/003.Green/1.jpg": picture() for s in ("train", "valid", "test")},
            "train/003.Green/: 1 pictures, at least 2",
        ),
        (
            "unseen",
            {"train/003.Green/1.jpg": picture(), "train/003.Green/2.jpg": picture()},
            "test/003.Green/: 0 pictures, at least 1",
        ),
    ],
)
def test_a_wrong_structure_is_refused(
    check: Check, upload: Upload, name: str, change: dict[str, bytes], message: str
) -> None:
    upload(name, {**dataset_files(), **change})
    with pytest.raises(DatasetError, match=message):
        check(name)


def test_a_missing_split_and_a_single_class_are_refused(check: Check, upload: Upload) -> None:
    upload("split", {k: v for k, v in dataset_files().items() if not k.startswith("valid/")})
    with pytest.raises(DatasetError, match="valid/: holds no picture"):
        check("split")
    upload("single", dataset_files(("001.Red",)))
    with pytest.raises(DatasetError, match="a classifier needs two"):
        check("single")


def test_a_long_list_is_cut_in_the_error_and_complete_in_the_log(
    check: Check, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {f"train/001.Red/broken{n}.jpg": b"x" for n in range(30)}
    upload("long", {**dataset_files(), **broken})
    with caplog.at_level(logging.ERROR), pytest.raises(DatasetError, match=r"and 11 more, see the log"):
        check("long")
    assert sum("is no image" in message for message in caplog.messages) == 30


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "I;16"])
def test_every_colour_mode_is_a_picture(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (20, 20)).save(buffer, "JPEG" if mode in {"L", "CMYK"} else "PNG")
    assert picture_problem(buffer.getvalue()) is None


def test_a_cut_png_and_a_huge_picture_are_problems() -> None:
    assert "cut off" in str(picture_problem(picture(format_="PNG")[:-30]))
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert "at most 64,000,000" in str(picture_problem(buffer.getvalue()))
