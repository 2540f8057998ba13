"""Class folders become datasets and batches; folders that cannot be trained on are refused by name."""

import shutil
from pathlib import Path

import pytest
import torch
from classifier import data
from classifier.errors import DatasetValueError
from classifier.images import to_tensor, working_side

SIZE = 28
GIBIBYTE = 2**30


class TestListing:
    def test_classes_are_the_sorted_folders_and_hidden_files_do_not_count(self, own_dataset: Path) -> None:
        train = own_dataset / "train"
        (train / ".cache").mkdir()
        (train / ".DS_Store").touch()
        (train / "001.Red_disc/.DS_Store").touch()
        listing = data.list_images("train", train)
        assert listing.classes == ("001.Red_disc", "002.Green_bar", "003.Blue_box")
        assert listing.labels == (0, 0, 0, 1, 1, 1, 2, 2, 2)

    def test_images_in_linked_and_nested_folders_count(self, own_dataset: Path, tmp_path: Path) -> None:
        moved = tmp_path / "elsewhere"
        shutil.move(own_dataset / "train/001.Red_disc", moved)
        nested = own_dataset / "train/001.Red_disc"
        nested.mkdir()
        (nested / "part").symlink_to(moved)
        assert data.list_images("train", own_dataset / "train").labels.count(0) == 3

    def test_labels_follow_the_training_classes(self, own_dataset: Path) -> None:
        shutil.rmtree(own_dataset / "valid/001.Red_disc")
        classes = data.list_images("train", own_dataset / "train").classes
        assert data.list_images("valid", own_dataset / "valid", classes).labels == (1, 2)

    def test_class_missing_in_train(self, own_dataset: Path) -> None:
        shutil.rmtree(own_dataset / "train/002.Green_bar")
        classes = data.list_images("train", own_dataset / "train").classes
        with pytest.raises(DatasetValueError, match=r"'valid' .* lacks: 002\.Green_bar; add them"):
            data.list_images("valid", own_dataset / "valid", classes)

    def test_empty_class(self, own_dataset: Path) -> None:
        (own_dataset / "train/004.Nothing").mkdir()
        with pytest.raises(DatasetValueError, match=r"'train': the class folder '004\.Nothing' is empty"):
            data.list_images("train", own_dataset / "train")

    def test_no_class_folders(self, tmp_path: Path) -> None:
        (tmp_path / "image.jpg").touch()
        with pytest.raises(DatasetValueError, match="'train' has no class folders"):
            data.list_images("train", tmp_path)

    def test_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "cat").mkdir()
        with pytest.raises(DatasetValueError, match="at least two"):
            data.list_images("train", tmp_path)


def make_dataset(folder: Path, cache_bytes: int = GIBIBYTE) -> data.ImageDataset:
    return data.ImageDataset(data.list_images("train", folder / "train"), SIZE, cache_bytes=cache_bytes)


class TestDataset:
    def test_broken_images_are_all_named(self, own_dataset: Path) -> None:
        whole = own_dataset / "train/001.Red_disc/000.jpg"
        whole.write_bytes(whole.read_bytes()[:-300])
        (own_dataset / "train/003.Blue_box/notes.jpg").write_text("not an image")
        with pytest.raises(DatasetValueError, match=r"notes\.jpg is not an image .*; replace"):
            make_dataset(own_dataset)
        (own_dataset / "train/003.Blue_box/notes.jpg").unlink()
        with pytest.raises(DatasetValueError, match=r"train/001\.Red_disc/000\.jpg is damaged or cut off"):
            make_dataset(own_dataset)

    def test_many_problems_are_counted(self, own_dataset: Path) -> None:
        for number in range(8):
            (own_dataset / f"train/002.Green_bar/{number}.jpg").touch()
        with pytest.raises(DatasetValueError, match=r"and 3 more"):
            make_dataset(own_dataset)

    def test_images_are_the_same_with_and_without_cache(self, dataset: Path) -> None:
        in_memory, from_disk = make_dataset(dataset), make_dataset(dataset, cache_bytes=0)
        assert in_memory.cached
        assert not from_disk.cached
        for index in range(0, len(in_memory), 9):
            assert torch.equal(in_memory[index][0], from_disk[index][0])

    def test_the_cache_keeps_to_its_limit(self, dataset: Path) -> None:
        needed = make_dataset(dataset).cache_bytes
        assert needed == len(make_dataset(dataset)) * 4 * working_side(SIZE) ** 2
        assert not make_dataset(dataset, cache_bytes=needed - 1).cached

    def test_evaluation_crops_are_the_center_in_the_listing_order(self, dataset: Path) -> None:
        listed = make_dataset(dataset)
        batches = list(data.evaluation_loader(listed, data.LoaderOptions(batch_size=10)))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert images.shape == (42, 3, SIZE, SIZE)
        assert images.dtype == torch.uint8
        assert labels.tolist() == list(listed.listing.labels)
        margin = (working_side(SIZE) - SIZE) // 2
        whole = to_tensor(listed.image(5))
        assert torch.equal(images[5], whole[:, margin : margin + SIZE, margin : margin + SIZE])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_has_its_own_reproducible_crops(self, dataset: Path, workers: int) -> None:
        listed = make_dataset(dataset)

        def epochs(seed: int, numbers: list[int], options: data.LoaderOptions) -> list[torch.Tensor]:
            sampler = data.EpochSampler(len(listed), seed)
            loader = data.training_loader(listed, options, sampler)
            found = []
            for number in numbers:
                sampler.set_epoch(number)
                found.append(torch.cat([images for images, _ in loader]))
            return found

        first, second = epochs(1, [1, 2], data.LoaderOptions(10))
        (resumed,) = epochs(1, [2], data.LoaderOptions(10, workers))
        again = epochs(1, [1, 2], data.LoaderOptions(10, workers))
        assert torch.equal(first, again[0])
        assert torch.equal(second, again[1])
        assert torch.equal(second, resumed)
        assert not torch.equal(first, second)
        assert not torch.equal(first, epochs(2, [1], data.LoaderOptions(10))[0])

    def test_workers_live_for_all_epochs(self, dataset: Path) -> None:
        listed = make_dataset(dataset)
        sampler = data.EpochSampler(len(listed), 1)
        loader = data.training_loader(listed, data.LoaderOptions(10, workers=1), sampler)
        workers = []
        for epoch in (1, 2):
            sampler.set_epoch(epoch)
            batches = iter(loader)
            workers.append([worker.pid for worker in batches._workers])  # type: ignore[attr-defined]
            assert len(list(batches)) == len(loader)
        assert workers[0] == workers[1]

    @pytest.mark.parametrize(("batch_size", "seen"), [(41, 41), (40, 42), (42, 42), (1, 42)])
    def test_no_batch_is_left_with_one_image(self, dataset: Path, batch_size: int, seen: int) -> None:
        listed = make_dataset(dataset)
        sampler = data.EpochSampler(len(listed), seed=0)
        loader = data.training_loader(listed, data.LoaderOptions(batch_size), sampler)
        assert sum(len(labels) for _, labels in loader) == seen


def test_files_that_are_no_images_or_left_out_are_not_listed(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path / "data")
    folder = tmp_path / "data" / "train" / "001.Red_disc"
    for name in ("Thumbs.db", "000.xml", "desktop.ini"):
        (folder / name).touch()
    (folder / "deep").mkdir()
    (folder / "000.jpg").rename(folder / "deep" / "000.jpg")
    channel = tmp_path / "left_out"
    channel.mkdir()
    (channel / "left_out.txt").write_text("train/001.Red_disc/deep/000.jpg\ntest/001.Red_disc/001.jpg\n")
    before = data.list_images("train", dataset / "train")
    after = data.list_images("train", tmp_path / "data" / "train", left_out=data.read_left_out(channel))
    assert len(after.files) == len(before.files) - 1
    assert {file.suffix for file in after.files} == {".jpg"}
    assert data.read_left_out(None) == data.read_left_out(tmp_path / "none") == frozenset()
