"""The one reader of images, on files that broke others; and that Airflow's side reads with it, too."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from classifier import reader
from PIL import Image

SHARED = Path(os.environ.get("SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")
CASES = SHARED / "cases"
TURNED = {
    "exif_6_neg.jpg",
    "exif_6_wrongtype_value.jpg",
    "exifcrash_signed_byte.jpg",
    "exif_orientation_6.jpg",
}


def photograph(side: int = 96) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((side, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def read(content: bytes, side: int = 48) -> Image.Image:
    return reader.to_rgb(reader.upright(reader.open_image(io.BytesIO(content)), side))


@pytest.mark.parametrize("left_out", [2, 1])
def test_a_jpeg_without_its_end_marker_is_whole(left_out: int) -> None:
    content = photograph()
    assert np.array_equal(np.asarray(read(content, 96)), np.asarray(read(content[:-left_out], 96)))


@pytest.mark.parametrize("left_out", [4, 5, 8, 12, 20, 150, 1000])
def test_a_jpeg_that_lacks_pixels_is_damaged(left_out: int) -> None:
    with pytest.raises(reader.ImageValueError, match="damaged or cut off"):
        read(photograph()[:-left_out])


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("odd", [None, (0x0100, 3, 70_000), (0x9C9B, 12, 5), (0x8769, 4, 2**32 - 1)])
def test_orientation_counts_whatever_is_beside_it(orientation: int, odd: tuple[int, int, int] | None) -> None:
    entries = [(0x0112, 3, 1, orientation)] + ([(odd[0], odd[1], 1, odd[2])] if odd else [])
    body = b"".join(
        tag.to_bytes(2, "little")
        + kind.to_bytes(2, "little")
        + count.to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, kind, count, value in sorted(entries)
    )
    block = b"Exif\0\0II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + body + bytes(4)
    content = photograph()
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    turned = np.asarray(read(content[:2] + segment + content[2:], 96))
    plain = Image.fromarray(np.asarray(read(content, 96)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", exif=exif)
    from PIL import ImageOps

    expected = ImageOps.exif_transpose(Image.open(buffer))
    assert np.array_equal(turned, np.asarray(expected))


@pytest.mark.parametrize(
    ("name", "is_image"),
    [
        ("a.jpg", True),
        ("A.JPEG", True),
        ("n0123", True),
        ("Thumbs.db", False),
        ("a.xml", False),
        (".a.jpg", False),
    ],
)
def test_files_that_are_images_by_their_names(name: str, is_image: bool) -> None:
    assert reader.is_image_name(name) is is_image


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not there: set SHARED_DATA to their folder")
class TestCases:
    @pytest.mark.parametrize("name", sorted(TURNED))
    def test_odd_exif_is_read_and_turned(self, name: str) -> None:
        with Image.open(CASES / name) as image:
            stored = image.convert("RGB")
        upright = np.asarray(read((CASES / name).read_bytes(), 400)).astype(int)
        turned = np.asarray(stored.transpose(Image.Transpose.ROTATE_270)).astype(int)
        assert np.abs(upright - turned).mean() < 1

    @pytest.mark.parametrize("name", ["png_exif_broken.png", "png_bad_iccp.png", "no_eoi.jpg", "good.jpg"])
    def test_sound_pixels_are_read(self, name: str) -> None:
        assert min(read((CASES / name).read_bytes()).size) > 0

    @pytest.mark.parametrize("name", ["cut150.jpg", "float.tif", "annotation.xml"])
    def test_others_are_refused(self, name: str) -> None:
        with pytest.raises(reader.ImageValueError):
            read((CASES / name).read_bytes())

    @pytest.mark.parametrize("name", ["tiny_1x1.png", "thin_4000x2.png"])
    def test_a_few_pixels_show_nothing(self, name: str) -> None:
        assert reader.shows_nothing(reader.open_image(CASES / name))
