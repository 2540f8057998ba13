"""Class folders as datasets, and the loaders that train and evaluate on them."""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from classifier.errors import DatasetValueError
from classifier.images import center_crop, decode, decoded_size, random_crop, to_tensor
from classifier.reader import ImageValueError, is_image_name, open_image

logger = logging.getLogger(__name__)

_REPORTED_PROBLEMS = 5
_PILLOW_BYTES = 4
"""Memory per RGB pixel of a Pillow image."""

Result = TypeVar("Result")
Loader = DataLoader[tuple[torch.Tensor, int]]
Position = tuple[int, int, int]
"""Seed, epoch and index: everything that the augmentation of an image depends on."""


@dataclass(frozen=True)
class Listing:
    """The images of one channel; `labels` are indices into `classes`."""

    channel: str
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]


def read_left_out(place: Path | None) -> frozenset[str]:
    """The images not to use, as `<split>/<class>/<file>`, from the text files at a place, if there is one."""
    if place is None or not place.exists():
        return frozenset()
    files = [place] if place.is_file() else [file for file in _files_below(place) if file.is_file()]
    lines = (line for file in files for line in file.read_text(encoding="utf-8").split("\n"))
    return frozenset(filter(None, lines))


def list_images(
    channel: str,
    root: Path,
    classes: Sequence[str] | None = None,
    left_out: frozenset[str] = frozenset(),
) -> Listing:
    """List a channel's class folders, but for hidden files, files that are no images, and those left out.

    Without `classes` (the channel `train`), the sorted folder names are the classes; with them, every folder
    must be one of them. Raises DatasetValueError for missing, unknown or empty class folders.
    """
    folders = sorted(entry for entry in _visible(root) if entry.is_dir())
    if not folders:
        raise DatasetValueError(
            f"channel '{channel}' has no class folders in {root}: its S3 prefix must hold <class>/<image>"
        )
    names = tuple(folder.name for folder in folders)
    if classes is None and len(names) < 2:
        raise DatasetValueError(
            f"channel '{channel}' has one class folder only ('{names[0]}'): a classifier needs at least two"
        )
    known = names if classes is None else tuple(classes)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DatasetValueError(
            f"channel '{channel}' has class folders that the channel 'train' lacks: {', '.join(unknown)}; "
            "add them to train/ or remove them"
        )
    loose = sum(1 for entry in _visible(root) if entry.is_file())
    if loose:
        logger.warning("channel '%s': %d files outside the class folders are not used", channel, loose)
    missing = [name for name in known if name not in names]
    if missing:
        logger.warning("channel '%s' has no images of %s", channel, ", ".join(missing))
    files: list[Path] = []
    labels: list[int] = []
    unused = 0
    for folder in folders:
        below = sorted(_files_below(folder))
        images = [
            file
            for file in below
            if is_image_name(file.name) and f"{channel}/{file.relative_to(root).as_posix()}" not in left_out
        ]
        unused += len(below) - len(images)
        if not images:
            raise DatasetValueError(
                f"channel '{channel}': the class folder '{folder.name}' is empty; add images or delete it"
            )
        files += images
        labels += [known.index(folder.name)] * len(images)
    if unused:
        logger.info("channel '%s': %d files are no images or left out", channel, unused)
    return Listing(channel, known, tuple(files), tuple(labels))


def choose_image_size(listing: Listing) -> int:
    """An input size in pixels: 1.5 times the median shorter side of the images, from 64 to 224.

    Backbones designed for 224 pixels profit from enlarged small images: for images of 64 pixels, a head on
    SqueezeNet's frozen features reaches 57 % test accuracy at 64 pixels, 67 % at 96 and 69 % at 128, which
    costs twice as much as 96. Raises DatasetValueError that names the images whose header cannot be read.
    """
    sides = sorted(_in_threads(functools.partial(_shorter_side, listing), len(listing.files)))
    return min(224, max(64, round(1.5 * sides[len(sides) // 2] / 32) * 32))


def _shorter_side(listing: Listing, index: int) -> int:
    with open_listed(listing, index) as image:
        return min(image.size)


def open_listed(listing: Listing, index: int) -> Image.Image:
    """Open a listed image and read its header; raises DatasetValueError that names it."""
    try:
        return open_image(listing.files[index])
    except ImageValueError as error:
        raise _broken(listing, index, error) from error


def _broken(listing: Listing, index: int, error: ImageValueError) -> DatasetValueError:
    file = listing.files[index]
    name = f"{listing.channel}/{file.parent.name}/{file.name}"
    return DatasetValueError(f"{name} {error}; replace the file or delete it")


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files_below(folder: Path) -> Iterator[Path]:
    """Files at any depth; links are followed, because a platform may link a channel to its download cache."""
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _files_below(entry)
        else:
            yield entry


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """The center crops and labels of a listing: (uint8 of shape (3, side, side), index of the class).

    Creating it checks every header. If the decoded images fit into `cache_bytes`, all are decoded at once,
    which finds damaged files before training starts; otherwise each image is decoded whenever it is used.
    Raises DatasetValueError that names the images which cannot be read.
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
            "channel '%s': %d images of %d classes, %s",
            listing.channel,
            len(self),
            len(listing.classes),
            "decoded once" if self.cached else "decoded in every epoch",
        )

    @property
    def cached(self) -> bool:
        """Whether the decoded images are in memory."""
        return self._cache is not None

    def __len__(self) -> int:
        return len(self.listing.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return to_tensor(center_crop(self.image(index), self.image_size)), self.listing.labels[index]

    def image(self, index: int) -> Image.Image:
        """The decoded image; raises DatasetValueError if it is damaged."""
        return self._cache[index] if self._cache is not None else self._decode(index)

    def _decoded_bytes(self, index: int) -> int:
        """Memory for the decoded image, by its header."""
        with open_listed(self.listing, index) as image:
            width, height = decoded_size(image.size, self.image_size)
        return _PILLOW_BYTES * width * height

    def _decode(self, index: int) -> Image.Image:
        with open_listed(self.listing, index) as image:
            try:
                return decode(image, self.image_size)
            except ImageValueError as error:
                raise _broken(self.listing, index, error) from error


def _in_threads(work: Callable[[int], Result], count: int) -> list[Result]:
    """`work(0)` to `work(count - 1)`, in order. Raises one DatasetValueError for all that failed."""
    problems: list[str] = []

    def call(index: int) -> Result | None:
        try:
            return work(index)
        except DatasetValueError as error:
            problems.append(str(error))
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(call, range(count)))
    if problems:
        hidden = len(problems) - _REPORTED_PROBLEMS
        more = f" (and {hidden} more)" if hidden > 0 else ""
        raise DatasetValueError("; ".join(sorted(problems)[:_REPORTED_PROBLEMS]) + more)
    return [result for result in results if result is not None]


class EpochSampler(Sampler[Position]):
    """The positions of one epoch's images in random order; call `set_epoch` before each epoch.

    Order and positions follow from seed and epoch alone. A resumed job thus repeats the sequence of an
    uninterrupted one, and workers that live for several epochs, each with its own copy of the dataset, still
    get the right epoch.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Use the order and the augmentation of this epoch from the next iteration on."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Position]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._size).tolist()
        return ((self._seed, self._epoch, index) for index in order)


class AugmentedDataset(Dataset[tuple[torch.Tensor, int]]):
    """The random crops and labels of a dataset, by `Position`."""

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, position: Position) -> tuple[torch.Tensor, int]:
        *_, index = position
        crop = random_crop(
            self._dataset.image(index), self._dataset.image_size, np.random.default_rng(position)
        )
        return to_tensor(crop), self._dataset.listing.labels[index]


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made. Without `workers`, images in memory use none and others one per processor.

    Cropping a decoded image costs less than passing the crop between processes.
    """

    batch_size: int
    workers: int | None = None
    pin_memory: bool = False

    def for_dataset(self, dataset: ImageDataset) -> dict[str, Any]:
        """The keyword arguments of a DataLoader; its workers live until the loader is deleted."""
        automatic = 0 if dataset.cached else os.cpu_count() or 1
        workers = automatic if self.workers is None else self.workers
        return {
            "batch_size": self.batch_size,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.pin_memory,
            "generator": torch.Generator(),  # else each new iterator draws from the model's random numbers
        }


def evaluation_loader(dataset: ImageDataset, options: LoaderOptions) -> Loader:
    """Center crops in the order of the listing: uint8 (N, 3, side, side) and int64 (N,)."""
    return DataLoader(dataset, **options.for_dataset(dataset))


def training_loader(dataset: ImageDataset, options: LoaderOptions, sampler: EpochSampler) -> Loader:
    """Random crops in the order of `sampler`, which is the loader's for all epochs: shapes as in evaluation.

    A last batch of a single image is dropped, because batch normalisation cannot train on it.
    """
    single = len(dataset) > options.batch_size and len(dataset) % options.batch_size == 1
    return DataLoader(
        AugmentedDataset(dataset), sampler=sampler, drop_last=single, **options.for_dataset(dataset)
    )
