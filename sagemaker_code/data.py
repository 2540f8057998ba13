"""Pictures as tensors: class folders, and the transforms that training, evaluation and inference share.

A picture takes the same way everywhere: header and limits (`open_picture`), decoding to RGB at a working
size (`decode`), one square view of it (`centre_view` or `random_view`), a uint8 tensor (`to_tensor`), and
normalised floats (`normalise`). Only the view differs between training and the rest.
"""

import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from errors import DatasetValueError, PictureValueError
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)

MEAN = (0.485, 0.456, 0.406)
"""Per-channel mean of ImageNet in [0, 1], as all torchvision weights in common use expect it."""
STD = (0.229, 0.224, 0.225)

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's other readers are never tried: some run external programs. Its JPEG reader takes MPO, too."""
MAX_PIXELS = 64_000_000
"""Largest picture accepted, from its header: 8,000 by 8,000 pixels take 256 MB when decoded."""
CROP_FRACTION = 0.875
"""Part of the shorter side that an evaluation view shows; 224 of 256 in torchvision's reference recipe."""
MAX_ASPECT = 2.0
"""A longer side beyond this multiple of the shorter is cut off equally at both ends."""
_REPORTED_PROBLEMS = 5
_PILLOW_BYTES = 4
"""Memory per RGB pixel of a Pillow image."""

Result = TypeVar("Result")
Loader = DataLoader[tuple[torch.Tensor, int]]


def open_picture(source: Path | BinaryIO) -> Image.Image:
    """Read a picture's header and check format and size; no pixel is decoded yet."""
    try:
        picture = Image.open(source, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureValueError(f"has too many pixels; at most {MAX_PIXELS:,} are accepted") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureValueError(f"is not a picture in one of the formats {', '.join(FORMATS)}") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureValueError(f"has {width} x {height} pixels; at most {MAX_PIXELS:,} are accepted")
    return picture


def decode(picture: Image.Image, image_size: int) -> Image.Image:
    """Decode to upright RGB whose shorter side is `working_side(image_size)` pixels."""
    side = working_side(image_size)
    try:
        picture.draft("RGB", (2 * side, 2 * side))  # JPEG: decode at 1/2, 1/4 or 1/8, still above the target
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, IndexError, Image.DecompressionBombError) as error:
        raise PictureValueError(f"is damaged or cut off ({error})") from error
    rgb = to_rgb(upright)
    size = decoded_size(rgb.size, image_size)
    return rgb.resize(size, Image.Resampling.BILINEAR, box=_kept_box(rgb.size), reducing_gap=3.0)


def decoded_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """Width and height to which `decode` brings a picture of `size`."""
    left, top, right, bottom = _kept_box(size)
    scale = working_side(image_size) / min(right - left, bottom - top)
    return round((right - left) * scale), round((bottom - top) * scale)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any colour mode as 8-bit RGB: 16-bit scaled down, transparent parts on white."""
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):
        sixteen_bit = np.asarray(picture, dtype=np.int64).clip(0, 65_535)
        return Image.fromarray((sixteen_bit // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise PictureValueError("has floating-point pixels; save it with 8 bits a channel")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise PictureValueError(f"has the colour mode {picture.mode}; save it as RGB") from error


def working_side(image_size: int) -> int:
    """Shorter side, in pixels, of the decoded picture from which views of `image_size` are cut."""
    return round(image_size / CROP_FRACTION)


def centre_view(picture: Image.Image, image_size: int) -> Image.Image:
    """The evaluation and inference view: the centre square."""
    left, top = (picture.width - image_size) // 2, (picture.height - image_size) // 2
    return picture.crop((left, top, left + image_size, top + image_size))


def random_view(picture: Image.Image, image_size: int, random: np.random.Generator) -> Image.Image:
    """The training view: a random part of 35 to 100 % of the area, mirrored half of the time."""
    area = picture.width * picture.height * random.uniform(0.35, 1.0)
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(picture.width, math.sqrt(area * aspect))
    height = min(picture.height, math.sqrt(area / aspect))
    left, top = random.uniform(0, picture.width - width), random.uniform(0, picture.height - height)
    box = (left, top, left + width, top + height)
    view = picture.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(view) if random.random() < 0.5 else view


def to_tensor(view: Image.Image) -> torch.Tensor:
    """A view as uint8, shape (3, side, side)."""
    return torch.from_numpy(np.array(view)).permute(2, 0, 1)


def normalise(batch: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) as float32 with ImageNet's mean and standard deviation, on the batch's device."""
    mean = torch.tensor(MEAN, device=batch.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=batch.device).view(1, 3, 1, 1)
    return ((batch.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def _kept_box(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part that is used of a picture."""
    width, height = size
    kept_width = min(width, round(height * MAX_ASPECT))
    kept_height = min(height, round(width * MAX_ASPECT))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return left, top, left + kept_width, top + kept_height


@dataclass(frozen=True)
class Listing:
    """The pictures of one channel; `labels` are indices into `classes`."""

    channel: str
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]


def list_pictures(channel: str, root: Path, classes: Sequence[str] | None = None) -> Listing:
    """List a channel's class folders; hidden files and folders do not count.

    Without `classes` the sorted folder names are the classes (the channel `train`); with them every folder
    must be one of them. Raises DatasetValueError if labels would be wrong or a class empty.
    """
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    if not folders:
        raise DatasetValueError(
            f"channel '{channel}' has no class folders in {root}: its S3 prefix must hold <class>/<picture>"
        )
    names = tuple(folder.name for folder in folders)
    if classes is None and len(names) < 2:
        raise DatasetValueError(
            f"channel '{channel}' has one class folder only ('{names[0]}'): a classifier needs at least two"
        )
    known = names if classes is None else tuple(classes)
    strangers = [name for name in names if name not in known]
    if strangers:
        raise DatasetValueError(
            f"channel '{channel}' has class folders that the channel 'train' lacks: {', '.join(strangers)}; "
            "add them to train/ or take them out"
        )
    loose = sum(1 for entry in _visible(root) if entry.is_file())
    if loose:
        logger.warning("channel '%s': %d files outside the class folders are not used", channel, loose)
    missing = [name for name in known if name not in names]
    if missing:
        logger.warning("channel '%s' has no pictures of %s", channel, ", ".join(missing))
    files: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        pictures = sorted(_files_below(folder))
        if not pictures:
            raise DatasetValueError(
                f"channel '{channel}': the class folder '{folder.name}' is empty; add pictures or delete it"
            )
        files += pictures
        labels += [known.index(folder.name)] * len(pictures)
    return Listing(channel, known, tuple(files), tuple(labels))


def suitable_size(listing: Listing) -> int:
    """An input size in pixels: one and a half times the pictures' median shorter side, from 64 to 224.

    Backbones made for 224 pixels see more in enlarged small pictures: on pictures of 64 pixels, SqueezeNet's
    fixed features give 57 % test accuracy at 64 pixels, 67 % at 96 and 69 % at 128, at twice the cost of 96.
    """
    sides = sorted(_in_threads(functools.partial(_shorter_side, listing), len(listing.files)))
    return min(224, max(64, round(1.5 * sides[len(sides) // 2] / 32) * 32))


def _shorter_side(listing: Listing, index: int) -> int:
    with open_listed(listing, index) as picture:
        return min(picture.size)


def open_listed(listing: Listing, index: int) -> Image.Image:
    """A listed picture's header; raises DatasetValueError with its name."""
    try:
        return open_picture(listing.files[index])
    except PictureValueError as error:
        raise _broken(listing, index, error) from error


def _broken(listing: Listing, index: int, error: PictureValueError) -> DatasetValueError:
    file = listing.files[index]
    name = f"{listing.channel}/{file.parent.name}/{file.name}"
    return DatasetValueError(f"{name} {error}; replace the file or delete it")


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth, through links too: a platform may link a channel to its download cache."""
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _files_below(entry)
        else:
            yield entry


class PictureDataset(Dataset[tuple[torch.Tensor, int]]):
    """A listing as (uint8 centre view of shape (3, side, side), label) pairs.

    Every header is checked when it is made. If the decoded pictures fit into `cache_bytes` they are all
    decoded once, so that damaged ones are found before training; if not, each is decoded when it is needed.
    """

    def __init__(self, listing: Listing, image_size: int, *, cache_bytes: int) -> None:
        self.listing = listing
        self.image_size = image_size
        self._cache: list[Image.Image] | None = None
        self.cache_bytes = 0
        decoded_bytes = sum(_in_threads(self._decoded_bytes, len(self)))
        if decoded_bytes <= cache_bytes:
            self._cache = _in_threads(self._decode, len(self))
            self.cache_bytes = decoded_bytes
        logger.info(
            "channel '%s': %d pictures of %d classes, %s",
            listing.channel,
            len(self),
            len(listing.classes),
            "decoded once" if self.cached else "decoded in every epoch",
        )

    @property
    def cached(self) -> bool:
        """Whether the decoded pictures are in memory."""
        return self._cache is not None

    def __len__(self) -> int:
        return len(self.listing.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return to_tensor(centre_view(self.picture(index), self.image_size)), self.listing.labels[index]

    def picture(self, index: int) -> Image.Image:
        """The decoded picture; raises DatasetValueError if it is damaged."""
        return self._cache[index] if self._cache is not None else self._decode(index)

    def _decoded_bytes(self, index: int) -> int:
        """Memory for the decoded picture, from its header."""
        with open_listed(self.listing, index) as picture:
            width, height = decoded_size(picture.size, self.image_size)
        return _PILLOW_BYTES * width * height

    def _decode(self, index: int) -> Image.Image:
        with open_listed(self.listing, index) as picture:
            try:
                return decode(picture, self.image_size)
            except PictureValueError as error:
                raise _broken(self.listing, index, error) from error


def _in_threads(work: Callable[[int], Result], count: int) -> list[Result]:
    """`work(0)` to `work(count - 1)`, in order; pictures with problems are reported together."""
    problems: list[str] = []

    def attempt(index: int) -> Result | None:
        try:
            return work(index)
        except DatasetValueError as error:
            problems.append(str(error))
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, range(count)))
    if problems:
        more = (
            f" (and {len(problems) - _REPORTED_PROBLEMS} more)" if len(problems) > _REPORTED_PROBLEMS else ""
        )
        raise DatasetValueError("; ".join(sorted(problems)[:_REPORTED_PROBLEMS]) + more)
    return [result for result in results if result is not None]


class RandomViews(Dataset[tuple[torch.Tensor, int]]):
    """One epoch's training views of a data set.

    They depend on seed, epoch and position alone, not on the number of workers or on interruptions.
    """

    def __init__(self, dataset: PictureDataset, seed: int, epoch: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        random = np.random.default_rng((self._seed, self._epoch, index))
        view = random_view(self._dataset.picture(index), self._dataset.image_size, random)
        return to_tensor(view), self._dataset.listing.labels[index]


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made; `workers` None means none for decoded pictures and one per processor otherwise.

    Cutting a view from a decoded picture costs less than passing the view between processes.
    """

    batch_size: int
    workers: int | None = None
    pin_memory: bool = False

    def for_dataset(self, dataset: PictureDataset) -> dict[str, Any]:
        """The keyword arguments of a DataLoader."""
        automatic = 0 if dataset.cached else os.cpu_count() or 1
        workers = automatic if self.workers is None else self.workers
        return {"batch_size": self.batch_size, "num_workers": workers, "pin_memory": self.pin_memory}


def evaluation_loader(dataset: PictureDataset, options: LoaderOptions) -> Loader:
    """Centre views in the order of the listing: uint8 (N, 3, side, side) and int64 (N,)."""
    return DataLoader(dataset, **options.for_dataset(dataset))


def training_loader(dataset: PictureDataset, options: LoaderOptions, seed: int, epoch: int) -> Loader:
    """One epoch's random views in random order.

    A last batch of one picture is left out: batch normalisation cannot be trained on it.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(dataset)).tolist()
    single = len(dataset) > options.batch_size and len(dataset) % options.batch_size == 1
    return DataLoader(
        RandomViews(dataset, seed, epoch), sampler=order, drop_last=single, **options.for_dataset(dataset)
    )
