"""Images as people have them become a dataset that a run takes: every layout, every odd file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from retraining.dataset.arranging import Arranged, arrange
from retraining.dataset.layouts import advice
from retraining.dataset.splits import read_shares
from retraining.errors import DatasetError

from tests.plugins.dataset.images import COPIES, motif, photo, sound
from tests.plugins.dataset.test_check import Check, check  # noqa: F401 - a fixture

SHARES = read_shares("0.8,0.1,0.1")
LABELS = ("akita", "boxer", "collie")


def classes(count: int = 20, first: int = 0, below: str = "") -> dict[str, bytes]:
    """So many different images of each class, in a folder for each."""
    return {
        f"{below}{label}/{n:02}.jpg": photo(first + place * 100 + n)
        for place, label in enumerate(LABELS)
        for n in range(count)
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def made(tmp_path: Path, files: dict[str, bytes], shares: dict[str, float] = SHARES) -> Arranged:
    return arrange(write(tmp_path / "mine", files), tmp_path / "made", shares, lambda _done, _total: None)


def counts(arranged: Arranged) -> dict[str, dict[str, int]]:
    return {split: dict(count) for split, count in arranged.counts.items()}


def all_of(**numbers: int) -> dict[str, dict[str, int]]:
    return {split: dict.fromkeys(LABELS, number) for split, number in numbers.items()}


def flat(count: int = 20) -> dict[str, bytes]:
    """A competition's: a flat folder, a table of its classes, and images without any."""
    images = classes(count)
    rows = [f"{label}{Path(name).stem},{label}" for name in images for label in [Path(name).parent.name]]
    return {
        **{f"train/{Path(name).parent.name}{Path(name).name}": content for name, content in images.items()},
        "labels.csv": ("\ufeffid,breed\n" + "\n".join(rows)).encode(),
        "test/unknown.jpg": photo(999),
    }


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (classes(), "one folder for each class, and no splits"),
        (classes(below="Images/"), "one folder for each class, and no splits"),
        (classes(below="train/"), "train/ with a folder for each class"),
        (flat(), "a table of classes"),
    ],
    ids=["classes", "one deeper", "train only", "table"],
)
def test_images_without_splits_get_them(files: dict[str, bytes], text: str, tmp_path: Path) -> None:
    arranged = made(tmp_path, files)
    assert arranged.layout.text == text
    assert counts(arranged) == all_of(train=16, valid=2, test=2)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {**classes(8, 0, "train/"), **classes(4, 20, "val/"), **classes(4, 40, "test/")},
            all_of(train=8, valid=4, test=4),
        ),
        (
            {**classes(8, 0, "dogs/train/"), **classes(4, 20, "dogs/valid/"), **classes(4, 40, "dogs/test/")},
            all_of(train=8, valid=4, test=4),
        ),
        (
            {
                **classes(8, 0, "Train/images/"),
                **classes(4, 20, "Val/images/"),
                **classes(4, 40, "Test/images/"),
            },
            all_of(train=8, valid=4, test=4),
        ),
        ({**classes(18, 0, "train/"), **classes(4, 40, "test/")}, all_of(train=16, valid=2, test=4)),
    ],
    ids=["val", "one deeper", "one deeper inside", "no valid"],
)
def test_splits_that_are_there_stay(
    files: dict[str, bytes], expected: dict[str, dict[str, int]], tmp_path: Path
) -> None:
    assert counts(made(tmp_path, files)) == expected


def test_an_image_stays_in_its_split_when_others_are_added(tmp_path: Path) -> None:
    def splits(arranged: Arranged) -> dict[str, str]:
        assert arranged.counts
        return {
            path.relative_to(tmp_path / "made").as_posix().partition("/")[2]: path.relative_to(
                tmp_path / "made"
            ).parts[0]
            for path in (tmp_path / "made").rglob("*.jpg")
        }

    before = splits(made(tmp_path, classes()))
    assert splits(made(tmp_path, classes())) == before
    after = splits(made(tmp_path, {**classes(), "akita/new.jpg": photo(5000)}))
    assert sum(after[name] != split for name, split in before.items()) <= 2  # at the borders between splits


def test_copies_and_near_copies_stay_together(tmp_path: Path) -> None:
    copies = {f"akita/{name}.jpg": change(motif(7)) for name, change in COPIES.items()}
    made(tmp_path, {**classes(), **copies, "akita/same.jpg": photo(7)})
    found = {
        path.parts[-3]
        for path in (tmp_path / "made").rglob("*.jpg")
        if path.stem in {*COPIES, "same", "07"} and path.parts[-2] == "akita"
    }
    assert len(found) == 1


def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path) -> None:
    given = {**classes(20, 0, "train/"), **classes(4, 40, "valid/"), **classes(4, 60, "test/")}
    arranged = made(
        tmp_path,
        {
            **given,
            "train/akita/cut.jpg": photo(800)[:-150],
            "train/akita/empty.jpg": b"",
            "train/akita/again.jpg": given["test/akita/00.jpg"],
            "train/akita/two.jpg": photo(801),
            "train/boxer/two.jpg": photo(801),
            "train/akita/Thumbs.db": b"x",
            "train/akita/cut.xml": b"<x/>",
            "train/loose.jpg": photo(802),
        },
    )
    assert counts(arranged) == all_of(train=20, valid=4, test=4)
    assert arranged.left_out["train/akita/empty.jpg"] == "it is empty"
    assert "damaged" in arranged.left_out["train/akita/cut.jpg"]
    assert arranged.left_out["train/akita/again.jpg"] == "test/ has the same image, or nearly"
    assert arranged.left_out["train/akita/two.jpg"] == "its content is in akita and boxer"
    assert arranged.left_out["train/loose.jpg"] == "it has no class"
    assert arranged.ignored == 2


def test_nothing_takes_up_space_twice_and_an_earlier_dataset_is_replaced(tmp_path: Path) -> None:
    made(tmp_path, classes())
    write(tmp_path / "made", {"train/akita/old.jpg": b"x"})
    made(tmp_path, classes())
    assert not (tmp_path / "made/train/akita/old.jpg").exists()
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / "made").rglob("*.jpg"))


def test_links_are_followed(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "elsewhere", classes())
    (tmp_path / "mine").mkdir()
    for label in LABELS:
        (tmp_path / "mine" / label).symlink_to(elsewhere / label)
    (elsewhere / "akita/round").symlink_to(elsewhere / "akita")
    assert counts(made(tmp_path, {})) == all_of(train=16, valid=2, test=2)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no images"),
        ({"a.jpg": b"x", "b.jpg": b"x"}, "has 2 images without a class"),
        (classes(2), r"too few different images.*akita \(train 2, valid 0, test 0\)|akita \(train 1"),
        ({**classes(), "Akita/1.jpg": photo(900)}, "'Akita' and 'akita': are one class"),
        ({**classes(4, 0, "valid/"), **classes(4, 60, "test/")}, "but no train/"),
        ({"a.jpg": b"x", "labels.csv": b"id,x,y\na,1,2\n"}, "columns id, x, y, and which one is the class"),
        ({f"akita/{n}.jpg": photo(n) for n in range(20)}, "at least two classes"),
    ],
)
def test_what_is_no_dataset_is_refused_with_the_fix(
    files: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(DatasetError, match=message):
        made(tmp_path, files)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("text", ["0.8,0.2", "a,b,c", "1,0,0", "0.8,0.1,-0.1", "nan,1,1", "inf,1,1", ""])
def test_shares_are_three_positive_numbers(text: str) -> None:
    with pytest.raises(DatasetError, match="for example"):
        read_shares(text)


def test_what_is_made_passes_the_check(tmp_path: Path, check: Check, upload: Any) -> None:  # noqa: F811
    made(
        tmp_path, {**classes(), **{f"akita/{name}.jpg": change(motif(7)) for name, change in COPIES.items()}}
    )
    target = tmp_path / "made"
    upload(
        "arranged", {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.jpg")}
    )
    assert check("arranged")["images"]["valid"] >= 3


def test_a_known_layout_in_s3_is_recognised(check: Check, upload: Any) -> None:  # noqa: F811
    upload("layout_classes", classes(2, 0, "Images/"))
    with pytest.raises(
        DatasetError, match=r"one folder for each class, and no splits: 6 images of 3 classes.*make dataset"
    ):
        check("layout_classes")
    upload("layout_val", {name.replace("valid/", "val/"): content for name, content in sound().items()})
    with pytest.raises(
        DatasetError, match=r"test/ and train/ and val/ with a folder for each class.*make dataset"
    ):
        check("layout_val")
    assert advice(["train/1.jpg", "labels.csv"]) is not None
    assert advice(["readme.txt"]) is None
