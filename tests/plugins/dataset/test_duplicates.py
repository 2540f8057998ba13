"""The search for duplicates, among photographs, drawn images and random hashes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from retraining.dataset.duplicates import Group, candidate_pairs, find_duplicates
from retraining.dataset.images import InspectedImage, inspect_image
from retraining.dataset.listing import DatasetImage

from demo.sample_dataset import Plan, images
from tests.dags.airflow_home import REPOSITORY
from tests.plugins.dataset.images import COPIES, cropped, motif, photo, saved

PHOTOGRAPHS = Path(os.environ.get("SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "dogImages"


def inspected(contents: Iterable[tuple[str, bytes]]) -> list[InspectedImage]:
    """Images as the check sees them, by their paths."""
    found = []
    for path, content in contents:
        split, label, _ = path.split("/", 2)
        found.append((DatasetImage(path, split, label, path, len(content)), inspect_image(content)))
    return found


def paths(groups: Sequence[Group]) -> list[set[str]]:
    return [{image.path for image in group.images} for group in groups]


@pytest.fixture(scope="module")
def photographs() -> list[Path]:
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"there are no photographs in {PHOTOGRAPHS}; set SHARED_DATA to the folder of dogImages")
    return sorted(PHOTOGRAPHS.glob("*/*/*.jpg"))


def test_the_search_finds_exactly_the_pairs_within_ten_bits() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << 64, 4000, dtype=np.uint64)
    flipped = hashes[:400].copy()
    for bit in range(64):
        flipped ^= (rng.random(400) < 0.15).astype(np.uint64) << np.uint64(bit)
    hashes = np.concatenate([hashes, flipped])
    found = {
        (min(pair), max(pair))
        for first, second in candidate_pairs(hashes)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    }
    expected = {
        (one, int(two))
        for one in range(len(hashes))
        for two in np.flatnonzero(np.bitwise_count(hashes[one + 1 :] ^ hashes[one]) <= 10) + one + 1
    }
    assert found == expected
    assert len(expected) > 200


@pytest.mark.parametrize("name", COPIES)
def test_a_changed_copy_is_a_near_duplicate(name: str) -> None:
    files = [(f"train/a/{n}.jpg", photo(n)) for n in range(20)]
    found = find_duplicates(inspected([*files, ("test/a/copy.jpg", COPIES[name](motif(7)))]))
    assert found.exact == []
    assert paths(found.near) == [{"train/a/7.jpg", "test/a/copy.jpg"}]


def test_exact_copies_and_a_near_one_of_them_are_one_near_group() -> None:
    files = [("train/a/1.jpg", photo(1)), ("train/b/1.jpg", photo(1)), ("train/a/2.jpg", photo(2))]
    found = find_duplicates(inspected([*files, ("valid/a/1.jpg", saved(motif(1), quality=40))]))
    assert paths(found.exact) == [{"train/a/1.jpg", "train/b/1.jpg"}]
    assert paths(found.near) == [{"train/a/1.jpg", "train/b/1.jpg", "valid/a/1.jpg"}]


def test_flat_images_are_no_near_duplicates_of_each_other() -> None:
    shades = [(f"train/a/{n}.png", saved(Image.new("RGB", (40, 40), (n, n, n)), "PNG")) for n in range(60)]
    found = find_duplicates(inspected(shades))
    assert (found.exact, found.near) == ([], [])


def test_too_many_look_alikes_end_the_search_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retraining.dataset.duplicates._MAX_CANDIDATES", 1000)
    alike = [(f"train/a/{n}.jpg", saved(motif(1), quality=30 + n)) for n in range(60)]
    found = find_duplicates(inspected([*alike, ("valid/a/1.jpg", alike[0][1])]))
    assert not found.complete
    assert len(found.exact) == 1


def test_drawn_dogs_of_a_class_are_no_duplicates() -> None:
    drawn = [
        (str(path), saved(image, quality=90)) for path, image in images(Plan(train=60, valid=10, test=10))
    ]
    found = find_duplicates(inspected(drawn))
    assert (found.exact, found.near, found.complete) == ([], [], True)


def test_photographs_have_the_one_duplicate_that_is_there(photographs: list[Path]) -> None:
    found = find_duplicates(
        inspected((str(path.relative_to(PHOTOGRAPHS)), path.read_bytes()) for path in photographs)
    )
    folder = "train/004.Labrador_retriever"
    assert found.exact == []
    assert paths(found.near) == [{f"{folder}/n02099712_247.jpg", f"{folder}/n02099712_377.jpg"}]


@pytest.mark.parametrize(
    ("name", "found_share"), [*((name, 0.97) for name in COPIES if name != "cropped"), ("cropped", 0.92)]
)
def test_copies_of_photographs_are_found(photographs: list[Path], name: str, found_share: float) -> None:
    files = [(f"train/a/{n}.jpg", path.read_bytes()) for n, path in enumerate(photographs[::20])]
    copies = [
        (path.replace("train", "test"), COPIES[name](Image.open(io.BytesIO(content))))
        for path, content in files
    ]
    groups = paths(find_duplicates(inspected([*files, *copies])).near)
    expected = [{path, path.replace("train", "test")} for path, _ in files]
    assert sum(group in groups for group in expected) / len(expected) >= found_share
    assert all(group in expected for group in groups)


def test_a_much_cropped_image_is_another_one() -> None:
    found = find_duplicates(
        inspected([("train/a/1.jpg", photo(1)), ("test/a/1.jpg", saved(cropped(0.25)(motif(1))))])
    )
    assert found.near == []
