"""Images of every kind become the right pixels; those that cannot be decoded are refused with the reason."""

import io

import numpy as np
import pytest
import torch
from classifier import images, reader
from PIL import Image, ImageCms

SIZE = 28

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.int_]]


def as_file(image: Image.Image, file_format: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    buffer.seek(0)
    return buffer


def decoded(file: io.BytesIO) -> Pixels:
    image = images.decode(reader.open_image(file), SIZE)
    assert image.mode == "RGB"
    assert min(image.size) == images.working_side(SIZE)
    return np.asarray(image).astype(int)


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
        image = Image.new("RGB", (40, 40), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
        assert mean_colour(decoded(as_file(image, "PNG"))) == [10, 200, 30]

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparent_parts_are_white(self, mode: str) -> None:
        assert mean_colour(decoded(as_file(Image.new(mode, (40, 40)), "PNG"))) == [255, 255, 255]

    def test_transparent_palette_entry_is_white(self) -> None:
        image = Image.new("P", (40, 40), 0)
        image.putpalette([0, 0, 0])
        file = as_file(image, "PNG", transparency=0)
        assert mean_colour(decoded(file)) == [255, 255, 255]

    def test_exif_rotation_is_applied(self) -> None:
        upright = Image.new("RGB", (60, 90), "black")
        upright.paste("white", (0, 0, 60, 45))
        stored = upright.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # the stored image must be turned by 90 degrees clockwise to be upright
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


class TestRefusedImages:
    @pytest.mark.parametrize("content", [b"", b"text", b"\xff\xd8\xff\xe0 no JPEG", b"%!PS-Adobe-3.0 EPSF"])
    def test_no_image(self, content: bytes) -> None:
        with pytest.raises(reader.ImageValueError, match="is not an image"):
            reader.open_image(io.BytesIO(content))

    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
    def test_cut_off_jpeg(self, kept: float) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))
        content = as_file(noise, "JPEG").getvalue()
        image = reader.open_image(io.BytesIO(content[: int(len(content) * kept)]))
        with pytest.raises(reader.ImageValueError, match="damaged or cut off"):
            images.decode(image, SIZE)

    def test_cut_off_png(self) -> None:
        content = as_file(Image.effect_noise((80, 80), 50), "PNG").getvalue()
        with pytest.raises(reader.ImageValueError, match="damaged or cut off"):
            images.decode(reader.open_image(io.BytesIO(content[: len(content) // 2])), SIZE)

    @pytest.mark.parametrize("size", [(9000, 9000), (20_000, 20_000)])
    def test_decompression_bomb(self, size: tuple[int, int]) -> None:
        bomb = as_file(Image.new("1", size), "PNG")
        assert len(bomb.getvalue()) < 100_000
        with pytest.raises(reader.ImageValueError, match="pixels"):
            reader.open_image(bomb)

    def test_floating_point(self) -> None:
        file = as_file(Image.new("F", (40, 40), 0.5), "TIFF")
        with pytest.raises(reader.ImageValueError, match="save it with 8 bits"):
            images.decode(reader.open_image(file), SIZE)


def test_normalise_gives_zero_mean_for_the_reference_colour() -> None:
    batch = torch.tensor(images.MEAN).mul(255).round().to(torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    normalised = images.normalise(batch)
    assert normalised.dtype == torch.float32
    assert normalised.abs().max() < 0.01
