"""Pictures of every kind become the right pixels; folders that cannot be trained on are refused by name."""

import io
import shutil
from pathlib import Path

import data
import numpy as np
import pytest
import torch
from errors import DatasetValueError, PictureValueError
from PIL import Image, ImageCms

SIZE = 28
GIBIBYTE = 2**30

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.int_]]


def as_file(picture: Image.Image, file_format: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    buffer.seek(0)
    return buffer


def decoded(file: io.BytesIO) -> Pixels:
    picture = data.decode(data.open_picture(file), SIZE)
    assert picture.mode == "RGB"
    assert min(picture.size) == data.working_side(SIZE)
    return np.asarray(picture).astype(int)


def mean_colour(pixels: Pixels) -> list[int]:
    return [round(value) for value in pixels.mean((0, 1))]


class TestDecode:
    def test_greyscale_has_three_equal_channels(self) -> None:
        pixels = decoded(as_file(Image.new("L", (50, 60), 77), "PNG"))
        assert mean_colour(pixels) == [77, 77, 77]

    def test_sixteen_bit_greyscale_is_scaled_not_clipped(self) -> None:
        deep = Image.fromarray(np.full((40, 40), 0x8080, dtype=np.uint16))
        assert mean_colour(decoded(as_file(deep, "PNG"))) == [128, 128, 128]

    def test_cmyk_jpeg(self) -> None:
        red_ink = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
        red, green, blue = mean_colour(decoded(as_file(red_ink, "JPEG", quality=95)))
        assert red > 240
        assert green < 15
        assert blue < 15

    def test_palette(self) -> None:
        picture = Image.new("RGB", (40, 40), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
        assert mean_colour(decoded(as_file(picture, "PNG"))) == [10, 200, 30]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_parts_are_white(self, mode: str) -> None:
        assert mean_colour(decoded(as_file(Image.new(mode, (40, 40)), "PNG"))) == [255, 255, 255]

    def test_transparent_palette_entry_is_white(self) -> None:
        picture = Image.new("P", (40, 40), 0)
        picture.putpalette([0, 0, 0])
        file = as_file(picture, "PNG", transparency=0)
        assert mean_colour(decoded(file)) == [255, 255, 255]

    def test_exif_rotation_is_applied(self) -> None:
        upright = Image.new("RGB", (60, 90), "black")
        upright.paste("white", (0, 0, 60, 45))
        stored = upright.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # the stored picture must be turned by 90 degrees clockwise to be upright
        pixels = decoded(as_file(stored, "JPEG", exif=exif, quality=95))
        assert pixels.shape[0] > pixels.shape[1]
        assert pixels[2].mean() > 240
        assert pixels[-3].mean() < 15

    def test_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(self) -> None:
        gradient = np.linspace(0, 255, 1200, dtype=np.uint8)
        large = Image.fromarray(np.broadcast_to(gradient[:, None, None], (1200, 1600, 3)).copy())
        from_jpeg = decoded(as_file(large, "JPEG", quality=95))
        from_png = decoded(as_file(large, "PNG"))
        assert from_jpeg.shape == from_png.shape
        assert np.abs(from_jpeg - from_png).mean() < 2

    def test_panorama_keeps_its_middle(self) -> None:
        panorama = Image.new("RGB", (2000, 20), "blue")
        panorama.paste("red", (970, 0, 1030, 20))
        pixels = decoded(as_file(panorama, "PNG"))
        assert pixels.shape[1] == 2 * pixels.shape[0]
        assert mean_colour(pixels) == [255, 0, 0]

    def test_animation_is_its_first_frame(self) -> None:
        frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
        file = as_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert mean_colour(decoded(file)) == [255, 0, 0]

    def test_colour_profile_does_not_matter(self) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        file = as_file(Image.new("RGB", (40, 40), (1, 2, 3)), "PNG", icc_profile=profile)
        assert mean_colour(decoded(file)) == [1, 2, 3]


class TestRefusedPictures:
    @pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 no JPEG", b"%!PS-Adobe-3.0 EPSF"])
    def test_no_picture(self, content: bytes) -> None:
        with pytest.raises(PictureValueError, match="is not a picture"):
            data.open_picture(io.BytesIO(content))

    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
    def test_cut_off_jpeg(self, kept: float) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))
        content = as_file(noise, "JPEG").getvalue()
        picture = data.open_picture(io.BytesIO(content[: int(len(content) * kept)]))
        with pytest.raises(PictureValueError, match="damaged or cut off"):
            data.decode(picture, SIZE)

    def test_cut_off_png(self) -> None:
        content = as_file(Image.effect_noise((80, 80), 50), "PNG").getvalue()
        with pytest.raises(PictureValueError, match="damaged or cut off"):
            data.decode(data.open_picture(io.BytesIO(content[: len(content) // 2])), SIZE)

    @pytest.mark.parametrize("size", [(9000, 9000), (20_000, 20_000)])
    def test_decompression_bomb(self, size: tuple[int, int]) -> None:
        bomb = as_file(Image.new("1", size), "PNG")
        assert len(bomb.getvalue()) < 100_000
        with pytest.raises(PictureValueError, match="pixels"):
            data.open_picture(bomb)

    def test_floating_point(self) -> None:
        file = as_file(Image.new("F", (40, 40), 0.5), "TIFF")
        with pytest.raises(PictureValueError, match="save it with 8 bits"):
            data.decode(data.open_picture(file), SIZE)


class TestListing:
    def test_classes_are_the_sorted_folders_and_hidden_files_do_not_count(self, own_dataset: Path) -> None:
        train = own_dataset / "train"
        (train / ".cache").mkdir()
        (train / ".DS_Store").touch()
        (train / "001.Red_disc/.DS_Store").touch()
        listing = data.list_pictures("train", train)
        assert listing.classes == ("001.Red_disc", "002.Green_bar", "003.Blue_box")
        assert listing.labels == (0, 0, 0, 1, 1, 1, 2, 2, 2)

    def test_pictures_in_linked_and_nested_folders_count(self, own_dataset: Path, tmp_path: Path) -> None:
        moved = tmp_path / "elsewhere"
        shutil.move(own_dataset / "train/001.Red_disc", moved)
        nested = own_dataset / "train/001.Red_disc"
        nested.mkdir()
        (nested / "part").symlink_to(moved)
        assert data.list_pictures("train", own_dataset / "train").labels.count(0) == 3

    def test_labels_follow_the_training_classes(self, own_dataset: Path) -> None:
        shutil.rmtree(own_dataset / "valid/001.Red_disc")
        classes = data.list_pictures("train", own_dataset / "train").classes
        assert data.list_pictures("valid", own_dataset / "valid", classes).labels == (1, 2)

    def test_class_missing_in_train(self, own_dataset: Path) -> None:
        shutil.rmtree(own_dataset / "train/002.Green_bar")
        classes = data.list_pictures("train", own_dataset / "train").classes
        with pytest.raises(DatasetValueError, match=r"'valid' .* lacks: 002\.Green_bar; add them"):
            data.list_pictures("valid", own_dataset / "valid", classes)

    def test_empty_class(self, own_dataset: Path) -> None:
        (own_dataset / "train/004.Nothing").mkdir()
        with pytest.raises(DatasetValueError, match=r"'train': the class folder '004\.Nothing' is empty"):
            data.list_pictures("train", own_dataset / "train")

    def test_no_class_folders(self, tmp_path: Path) -> None:
        (tmp_path / "picture.jpg").touch()
        with pytest.raises(DatasetValueError, match="'train' has no class folders"):
            data.list_pictures("train", tmp_path)

    def test_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "cat").mkdir()
        with pytest.raises(DatasetValueError, match="at least two"):
            data.list_pictures("train", tmp_path)


def make_dataset(folder: Path, cache_bytes: int = GIBIBYTE) -> data.PictureDataset:
    return data.PictureDataset(data.list_pictures("train", folder / "train"), SIZE, cache_bytes=cache_bytes)


class TestDataset:
    def test_broken_pictures_are_all_named(self, own_dataset: Path) -> None:
        whole = own_dataset / "train/001.Red_disc/000.jpg"
        whole.write_bytes(whole.read_bytes()[:-300])
        (own_dataset / "train/003.Blue_box/notes.txt").write_text("not a picture")
        with pytest.raises(DatasetValueError, match=r"notes\.txt is not a picture .*; replace"):
            make_dataset(own_dataset)
        (own_dataset / "train/003.Blue_box/notes.txt").unlink()
        with pytest.raises(DatasetValueError, match=r"train/001\.Red_disc/000\.jpg is damaged or cut off"):
            make_dataset(own_dataset)

    def test_many_problems_are_counted(self, own_dataset: Path) -> None:
        for number in range(8):
            (own_dataset / f"train/002.Green_bar/{number}.txt").touch()
        with pytest.raises(DatasetValueError, match=r"and 3 more"):
            make_dataset(own_dataset)

    def test_pictures_are_the_same_with_and_without_cache(self, dataset: Path) -> None:
        in_memory, from_disk = make_dataset(dataset), make_dataset(dataset, cache_bytes=0)
        assert in_memory.cached
        assert not from_disk.cached
        for index in range(0, len(in_memory), 9):
            assert torch.equal(in_memory[index][0], from_disk[index][0])

    def test_the_cache_keeps_to_its_limit(self, dataset: Path) -> None:
        needed = make_dataset(dataset).cache_bytes
        assert needed == len(make_dataset(dataset)) * 4 * data.working_side(SIZE) ** 2
        assert not make_dataset(dataset, cache_bytes=needed - 1).cached

    def test_evaluation_views_are_the_centre_in_the_listing_order(self, dataset: Path) -> None:
        pictures = make_dataset(dataset)
        batches = list(data.evaluation_loader(pictures, data.LoaderOptions(batch_size=10)))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert images.shape == (42, 3, SIZE, SIZE)
        assert images.dtype == torch.uint8
        assert labels.tolist() == list(pictures.listing.labels)
        margin = (data.working_side(SIZE) - SIZE) // 2
        whole = data.to_tensor(pictures.picture(5))
        assert torch.equal(images[5], whole[:, margin : margin + SIZE, margin : margin + SIZE])

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_has_its_own_reproducible_views(self, dataset: Path, workers: int) -> None:
        pictures = make_dataset(dataset)

        def epoch(seed: int, number: int, options: data.LoaderOptions) -> torch.Tensor:
            loader = data.training_loader(pictures, options, seed, number)
            return torch.cat([images for images, _ in loader])

        here = epoch(1, 1, data.LoaderOptions(10))
        assert torch.equal(here, epoch(1, 1, data.LoaderOptions(10, workers)))
        assert not torch.equal(here, epoch(1, 2, data.LoaderOptions(10)))
        assert not torch.equal(here, epoch(2, 1, data.LoaderOptions(10)))

    @pytest.mark.parametrize(("batch_size", "seen"), [(41, 41), (40, 42), (42, 42), (1, 42)])
    def test_no_batch_is_left_with_one_picture(self, dataset: Path, batch_size: int, seen: int) -> None:
        loader = data.training_loader(make_dataset(dataset), data.LoaderOptions(batch_size), seed=0, epoch=1)
        assert sum(len(labels) for _, labels in loader) == seen


def test_normalise_gives_zero_mean_for_the_reference_colour() -> None:
    batch = torch.tensor(data.MEAN).mul(255).round().to(torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    normalised = data.normalise(batch)
    assert normalised.dtype == torch.float32
    assert normalised.abs().max() < 0.01
