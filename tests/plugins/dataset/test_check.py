"""The check of the dataset, against images in a real S3."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from PIL import Image
from retraining.aws.clients import Aws
from retraining.aws.s3 import link, read, write
from retraining.config.pipeline import Pipeline
from retraining.dataset.check import check_dataset
from retraining.dataset.images import inspect_image
from retraining.errors import DatasetError
from retraining.runs.context import RunLocation

from tests.browser import chromium
from tests.dags.airflow_home import BUCKET
from tests.plugins.conftest import MakeSettings
from tests.plugins.dataset.images import motif, photo, saved, sound

Upload = Callable[[str, dict[str, bytes]], None]


class Check(Protocol):
    def __call__(self, prefix: str, run: str = ..., last: Any = ..., **limits: float) -> dict[str, Any]: ...


@pytest.fixture
def check(pipeline: Pipeline, make_settings: MakeSettings, aws: Aws) -> Check:
    """Check the dataset under a prefix, as a pipeline of its own; limits are set by keyword."""

    def run_check(prefix: str, run: str = "first", last: Any = None, **limits: float) -> dict[str, Any]:
        dataset = pipeline.dataset.model_copy(update=limits)
        changed = pipeline.model_copy(update={"dataset": dataset})
        location = RunLocation(BUCKET, f"test_{prefix.rstrip('/').rpartition('/')[2]}", run)
        return dict(check_dataset(changed, make_settings(dataset_prefix=prefix), aws, location, last))

    return run_check


@contextmanager
def objects_read(aws: Aws) -> Iterator[list[str]]:
    """The keys of dataset objects that are downloaded meanwhile, as the AWS client sees them."""
    keys: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        if not params["url_path"].partition("retraining/")[1]:
            keys.append(params["url_path"])

    aws.s3.meta.events.register("before-call.s3.GetObject", note)
    try:
        yield keys
    finally:
        aws.s3.meta.events.unregister("before-call.s3.GetObject", note)


def page_of(aws: Aws, prefix: str, run: str = "first") -> str:
    content = read(aws.s3, f"s3://{BUCKET}/retraining/test_{prefix}/{run}/dataset/report.html")
    assert content is not None
    return content.decode()


def test_a_valid_dataset_is_counted(check: Check, upload: Upload, aws: Aws) -> None:
    upload("sound", {**sound(), "train/001.Red/.DS_Store": b"x"})
    result = check("sound")
    folder = f"s3://{BUCKET}/retraining/test_sound/first/dataset"
    digest, url = result.pop("digest"), result.pop("report_url")
    assert result == {
        "uri": f"s3://{BUCKET}/sound",
        "bucket": BUCKET,
        "prefix": "sound",
        "classes": ["001.Red", "002.Blue"],
        "images": {"train": 6, "valid": 6, "test": 6},
        "counts": {split: {"001.Red": 3, "002.Blue": 3} for split in ("train", "valid", "test")},
        "manifest": f"{folder}/manifest.jsonl.gz",
        "warnings": [],
        "left_out": None,
        "changes": None,
        "report": f"{folder}/report.html",
    }
    assert len(digest) == 64
    assert "X-Amz-Signature" in url or "Signature=" in url
    assert ">Valid<" in page_of(aws, "sound")


def test_an_s3_uri_names_another_bucket(check: Check, upload: Upload) -> None:
    upload("elsewhere/deep", sound())
    assert check(f"s3://{BUCKET}/elsewhere/deep/")["images"] == {"train": 6, "valid": 6, "test": 6}
    with pytest.raises(DatasetError, match="The bucket no-such-bucket does not exist"):
        check("s3://no-such-bucket/x")


def test_an_empty_prefix_says_what_belongs_there(check: Check) -> None:
    with pytest.raises(DatasetError, match=r"There are no images under s3://.*/nothing/\. Upload"):
        check("nothing")


def test_a_few_damaged_files_are_left_out_and_listed(check: Check, upload: Upload, aws: Aws) -> None:
    files = sound()
    files["train/001.Red/0.jpg"] = files["train/001.Red/0.jpg"][:-200]
    upload("few_damaged", files)
    result = check("few_damaged", max_damaged_share=0.06)
    assert result["images"] == {"train": 5, "valid": 6, "test": 6}
    assert read(aws.s3, result["left_out"]) == b"train/001.Red/0.jpg\n"
    [warning] = result["warnings"]
    assert "left out of training and evaluation: 1, such as train/001.Red/0.jpg, which is damaged" in warning
    assert "left out of training" in page_of(aws, "few_damaged")


def test_a_class_that_is_damaged_as_a_whole_stops_the_run(check: Check, upload: Upload) -> None:
    files = {**sound(), **{f"valid/002.Blue/{number}.jpg": b"" for number in range(3)}}
    upload("empty_class", files)
    with pytest.raises(DatasetError, match="Incomplete without the files that cannot be read"):
        check("empty_class", max_damaged_share=0.5)


def test_files_that_are_no_images_are_ignored_with_a_count(check: Check, upload: Upload) -> None:
    others = ("Thumbs.db", "desktop.ini", "0.xml", "sub/", "x_$folder$")
    upload("others", {**sound(), **{f"train/001.Red/{name}": b"x" for name in others}})
    result = check("others")
    assert result["images"]["train"] == 6
    [warning] = result["warnings"]
    assert "are none, and are ignored: 3, such as train/001.Red/0.xml" in warning


def test_tiny_images_are_warned_of(check: Check, upload: Upload) -> None:
    upload("tiny", {**sound(), "train/001.Red/thin.png": saved(Image.new("RGB", (400, 2)), "PNG")})
    assert any(
        "a few pixels only: 1, such as train/001.Red/thin.png" in one for one in check("tiny")["warnings"]
    )


@pytest.mark.parametrize(
    ("number", "keys", "message"),
    [
        (1, ["train/001.Red//9.jpg"], "'train/001.Red//9.jpg': has an empty folder"),
        (
            2,
            ["train/001.Red/9", "train/001.Red/9/a.jpg"],
            "'train/001.Red/9': is a file and a folder at once",
        ),
        (3, [f"train/001.Red/{'x' * 252}.jpg"], "has a name of more than 255 bytes"),
        (4, ["train/001.RED/0.jpg"], "'001.RED' and '001.Red': are one class for a person"),
        (
            5,
            ["train/\u00c9pagneul/0.jpg", "train/E\u0301pagneul/0.jpg"],
            r"'E\\u0301pagneul' and '\\xc9pagneul': are",
        ),
        (6, ["train/001.Red /0.jpg"], "'001.Red' and '001.Red ': are one class"),
    ],
)
def test_keys_that_no_job_could_use_are_named(
    check: Check, upload: Upload, number: int, keys: list[str], message: str
) -> None:
    files = sound()
    upload(f"keys{number}", {**files, **dict.fromkeys(keys, files["train/001.Red/0.jpg"])})
    with pytest.raises(DatasetError, match=message):
        check(f"keys{number}")


def test_damaged_files_are_all_listed_and_not_read_twice(check: Check, upload: Upload, aws: Aws) -> None:
    files = sound()
    files["train/001.Red/0.jpg"] = files["train/001.Red/0.jpg"][:-200]
    files["valid/002.Blue/1.jpg"] = b"no image at all"
    files["test/002.Blue/2.jpg"] = b""
    upload("damaged", files)
    with pytest.raises(DatasetError) as caught:
        check("damaged")
    text = str(caught.value)
    assert "Files that cannot be read (3 of 18, more than dataset.max_damaged_share, 1.00%, allows)" in text
    assert "train/001.Red/0.jpg: is damaged or cut off" in text
    assert "valid/002.Blue/1.jpg: is not an image" in text
    assert "test/002.Blue/2.jpg: is empty" in text
    assert "train/001.Red/0.jpg: is damaged or cut off" in page_of(aws, "damaged")

    with objects_read(aws) as keys, pytest.raises(DatasetError) as again:
        check("damaged")
    assert (str(again.value), keys) == (text, [])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            ("unknown class", {"valid/003.Green/1.jpg": b"x"}),
            "valid/003.Green/: the class is absent from train/",
        ),
        (("empty", {"train/003.Green/": b""}), "train/003.Green/: is empty; add images"),
        (
            ("few", {f"{split}/003.Green/1.jpg": b"x" for split in ("train", "valid", "test")}),
            "train/003.Green/: 1 images, at least 2",
        ),
        (
            ("unseen", {"train/003.Green/1.jpg": b"x", "train/003.Green/2.jpg": b"x"}),
            "test/003.Green/: 0 images, at least 1",
        ),
    ],
)
def test_a_wrong_structure_is_refused_before_any_image_is_read(
    check: Check, upload: Upload, aws: Aws, case: tuple[str, dict[str, bytes]], message: str
) -> None:
    name, change = case
    upload(name, {**sound(), **change})
    with objects_read(aws) as keys, pytest.raises(DatasetError, match=message):
        check(name)
    assert keys == []
    assert message in page_of(aws, name)


def test_a_missing_split_and_a_single_class_are_refused(check: Check, upload: Upload) -> None:
    upload("split", {name: content for name, content in sound().items() if not name.startswith("valid/")})
    with pytest.raises(DatasetError, match="valid/: holds no images"):
        check("split")
    upload("single", sound(("001.Red",)))
    with pytest.raises(DatasetError, match="a classifier needs at least two"):
        check("single")


def test_a_long_list_is_cut_in_the_error_and_complete_in_the_log(
    check: Check, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    upload("long", {**sound(), **{f"train/001.Red/broken{n}.jpg": bytes([n]) for n in range(30)}})
    with caplog.at_level(logging.ERROR), pytest.raises(DatasetError) as caught:
        check("long")
    assert str(caught.value).count("is not an image") == 20
    assert "... and 10 more, see the log" in str(caught.value)
    assert sum("is not an image" in message for message in caplog.messages) == 30


def test_one_content_in_two_classes_stops_the_run(check: Check, upload: Upload, aws: Aws) -> None:
    upload("conflict", {**sound(), "train/002.Blue/x.jpg": photo(0)})
    with pytest.raises(DatasetError) as caught:
        check("conflict")
    assert "Images in more than one class (1); delete the wrong copies" in str(caught.value)
    assert "train/001.Red/0.jpg = train/002.Blue/x.jpg" in str(caught.value)
    page = page_of(aws, "conflict")
    assert "Same content in two classes" in page
    assert page.count("data:image/jpeg;base64,") == 2
    with chromium() as browser, browser.new_context() as context:
        shown = context.new_page()
        shown.goto(link(aws.s3, f"s3://{BUCKET}/retraining/test_conflict/first/dataset/report.html"))
        assert "Same content in two classes" in shown.inner_text("body")
        widths = shown.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
        assert len(widths) == 2
        assert all(widths)


def test_near_duplicates_in_two_classes_and_repeated_images_warn(
    check: Check, upload: Upload, caplog: pytest.LogCaptureFixture
) -> None:
    copies = {
        "train/002.Blue/near.jpg": saved(motif(0), quality=40),
        "train/001.Red/same.jpg": photo(1),
        "train/001.Red/near.jpg": saved(motif(2), quality=40),
    }
    upload("repeated", {**sound(), **copies})
    with caplog.at_level(logging.WARNING):
        warnings = check("repeated")["warnings"]
    assert [message for message in caplog.messages if message in warnings] == warnings
    text = "\n".join(warnings)
    assert "Groups of near duplicates in more than one class: 1, such as train/001.Red/0.jpg = " in text
    assert "more than once (same content): 2, such as" in text
    assert "more than once (near duplicates): 2, such as" in text


@pytest.mark.parametrize("quality", [92, 40])
def test_leakage_warns_within_the_limit_and_stops_above_it(
    check: Check, upload: Upload, aws: Aws, quality: int
) -> None:
    name = f"leak{quality}"
    upload(name, {**sound(), "test/001.Red/leaked.jpg": saved(motif(0), quality=quality)})
    assert check(name, max_leaked_share=0.2)["warnings"] == [
        "Images of test/ that are also in another split: 1 (14.29%), within the limit of 20.00%."
    ]
    with pytest.raises(DatasetError) as caught:
        check(name, run="second")
    text = str(caught.value)
    assert "another split (1, or 14.29%; dataset.max_leaked_share is 1.00%)" in text
    assert "test/001.Red/leaked.jpg = train/001.Red/0.jpg" in text
    assert "delete them from one of the splits" in text
    page = page_of(aws, name, "second")
    assert "In more than one split" in page
    assert page.count("data:image/jpeg;base64,") == 2


def test_imbalance_flat_images_and_unused_files_warn(check: Check, upload: Upload) -> None:
    files = sound()
    files["train/001.Red/flat.png"] = saved(Image.new("RGB", (40, 40), (9, 9, 9)), "PNG")
    upload("odd", {**files, "README.txt": b"x"})
    text = "\n".join(check("odd", max_class_ratio=1.2)["warnings"])
    assert "Files outside <split>/<class>/, which are not used: 1, such as README.txt" in text
    assert "Images of a single shade: 1, such as train/001.Red/flat.png" in text
    assert "train/: 001.Red has 4 images and 002.Blue 3, a ratio of 1.3" in text


def test_a_second_check_reads_only_what_is_new_and_tells_the_changes(
    check: Check, upload: Upload, aws: Aws
) -> None:
    upload("weekly", sound())
    first = check("weekly")
    last = {"run": "first", "dataset": first}
    with objects_read(aws) as keys:
        second = check("weekly", "second", last)
    assert keys == []
    assert second["digest"] == first["digest"]
    assert second["changes"] == {"since": "first", "classes": {}, "added": 0, "removed": 0, "changed": 0}

    upload("weekly", {"train/001.Red/new.jpg": photo(100), "train/001.Red/0.jpg": photo(101)})
    aws.s3.delete_object(Bucket=BUCKET, Key="weekly/train/002.Blue/0.jpg")
    with objects_read(aws) as keys:
        third = check("weekly", "third", last)
    assert sorted(key.rpartition("weekly/")[2] for key in keys) == [
        "train/001.Red/0.jpg",
        "train/001.Red/new.jpg",
    ]
    assert third["digest"] != first["digest"]
    assert third["changes"] == {
        "since": "first",
        "classes": {
            "001.Red": {"added": 1, "removed": 0, "changed": 1},
            "002.Blue": {"added": 0, "removed": 1, "changed": 0},
        },
        "added": 1,
        "removed": 1,
        "changed": 1,
    }
    assert "changes since first" in page_of(aws, "weekly", "third")


def test_a_moved_image_changes_the_digest_and_is_not_read_again(
    check: Check, upload: Upload, aws: Aws
) -> None:
    upload("moving", sound())
    first = check("moving")
    key = "moving/train/001.Red/0.jpg"
    aws.s3.copy_object(Bucket=BUCKET, Key=f"{key}.moved.jpg", CopySource={"Bucket": BUCKET, "Key": key})
    aws.s3.delete_object(Bucket=BUCKET, Key=key)
    with objects_read(aws) as keys:
        second = check("moving", "second", {"run": "first", "dataset": first})
    assert keys == []
    assert second["digest"] != first["digest"]
    assert second["changes"]["classes"] == {"001.Red": {"added": 1, "removed": 1, "changed": 0}}


def other_version() -> bytes:
    return gzip.compress(json.dumps({"manifest": 0}).encode())


def line_without_hash() -> bytes:
    entry = {"path": "train/001.Red/0.jpg", "etag": "x", "size": 1, "sha256": "x"}
    return gzip.compress(b'{"manifest": 1}\n' + json.dumps(entry).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(b"[1]"),
        gzip.compress(b'{"manifest": 1}\n{"pa'),
        gzip.compress(b'{"manifest": 1}\n[]'),
        gzip.compress(bytes(range(256)) * 9)[:-20],
        other_version(),
        line_without_hash(),
    ],
    ids=["empty", "no gzip", "no heading", "cut line", "no entry", "cut file", "other version", "no hash"],
)
def test_a_corrupt_manifest_is_ignored_with_a_warning_and_written_anew(
    check: Check, upload: Upload, aws: Aws, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    upload("corrupt", sound(count=2))
    write(aws.s3, f"s3://{BUCKET}/retraining/test_corrupt/dataset/manifest.jsonl.gz", content)
    with objects_read(aws) as keys, caplog.at_level(logging.WARNING):
        check("corrupt")
    assert len(keys) == 12
    assert any("is unusable and will be rewritten" in message for message in caplog.messages)
    with objects_read(aws) as keys:
        check("corrupt")
    assert keys == []


def test_changes_are_unknown_without_the_last_run_s_manifest(check: Check, upload: Upload) -> None:
    upload("retired", sound())
    gone = {"run": "long-ago", "dataset": {"manifest": f"s3://{BUCKET}/retraining/gone/manifest.jsonl.gz"}}
    assert check("retired", last=gone)["changes"] is None


def test_names_are_escaped_on_the_page(check: Check, upload: Upload, aws: Aws) -> None:
    label = "<b>&amp;"
    files = {name.replace("001.Red", label): content for name, content in sound().items()}
    upload("escaped", files)
    check("escaped")
    page = page_of(aws, "escaped")
    assert "&lt;b&gt;&amp;amp;" in page
    assert "<b>&amp;" not in page


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "I;16", "1", "LA"])
def test_every_colour_mode_is_read(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (20, 20)).save(buffer, "JPEG" if mode in {"L", "CMYK"} else "PNG")
    facts = inspect_image(buffer.getvalue())
    assert (facts.problem, facts.width, facts.height) == (None, 20, 20)


def test_a_truncated_png_and_a_huge_image_are_problems() -> None:
    assert "cut off" in str(inspect_image(saved(motif(1), "PNG")[:-30]).problem)
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert "at most 64,000,000" in str(inspect_image(buffer.getvalue()).problem)
