"""The drawn breeds: reproducible, all different, and as many as asked for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from demo.sample_dataset import BREEDS, Plan, draw_dataset

SMALL = Plan(train=3, valid=1, test=1, side=32)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.jpg")
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "data"
    assert draw_dataset(folder, SMALL)
    return folder


def test_every_split_has_every_breed(drawn: Path) -> None:
    for split, count in SMALL.splits().items():
        classes = sorted(path.name for path in (drawn / split).iterdir())
        assert classes == [breed.name for breed in BREEDS]
        assert all(len(list((drawn / split / name).iterdir())) == count for name in classes)


def test_no_two_images_are_the_same(drawn: Path) -> None:
    found = digests(drawn)
    assert len(found) == len(BREEDS) * 5
    assert len(set(found.values())) == len(found)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(drawn: Path, tmp_path: Path) -> None:
    draw_dataset(tmp_path / "again", SMALL)
    draw_dataset(tmp_path / "other", Plan(train=3, valid=1, test=1, side=32, seed=8))
    assert digests(tmp_path / "again") == digests(drawn)
    assert not set(digests(tmp_path / "other").values()) & set(digests(drawn).values())


def test_it_is_drawn_once_and_again_where_it_is_incomplete(tmp_path: Path) -> None:
    assert draw_dataset(tmp_path / "data", SMALL)
    assert not draw_dataset(tmp_path / "data", SMALL)
    (tmp_path / "data" / ".complete.json").unlink()
    assert draw_dataset(tmp_path / "data", SMALL)


def test_images_are_rgb_pictures_of_the_asked_size(drawn: Path) -> None:
    with Image.open(next(drawn.rglob("*.jpg"))) as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
