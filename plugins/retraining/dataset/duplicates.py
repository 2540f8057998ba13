"""Duplicate images: exact copies by their content, near duplicates by perceptual hash and signature.

The search for near duplicates has two steps, neither of which compares all images with each other.

1. Candidates are pairs whose DCT hashes (pHash, Zauner 2010, by ImageHash) differ in at most 10 of 64 bits.
   Multi-index hashing (Norouzi, Punjani and Fleet, 2012) finds all of them: the 64 bits are split into four
   bands of 16. By the pigeonhole principle, two hashes that differ in up to 11 bits have at least one band in
   which they differ in at most two. So every band of every hash is looked up with each of the 137 ways to
   flip up to two bits.
2. A candidate is confirmed by the signatures of its two images: the normalised correlation of 16 x 16 pixels
   of luma, the best over crops of either image, is at least 0.97, and brightness, contrast and the colours of
   4 x 4 areas differ no more than they do between copies. A grey copy differs in colour but not in luma.

The limits were tuned on images that were changed and saved again as JPEG: 300 photographs of dogs at 64 px,
and 300 drawn dogs at 96 px, whose compositions are similar. Found, in percent of the photographs / drawings:

    quality 60, quality 30, half size, 1.5 times the size, other aspect ratio, grey    100 / 100
    brightness 0.8, 1.1, 1.25                                              99, 99, 98 / 100, 100, 86
    contrast 1.2, saturation 1.3                                               99, 99 / 100, 100
    crops by 2, 4, 6 % of the side, all round                              97, 33, 21 / 99, 64, 24

Mirrored and rotated copies are not found. False positives: none among the 4.7 million pairs of 3,060
photographs (the one pair found is a duplicate), and none among the 1.5 million pairs of 2,600 drawings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt

from retraining.dataset.images import CHROMA_SIDE, LUMA_SIDE, ImageFacts, InspectedImage
from retraining.dataset.listing import DatasetImage

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.float32]
Accepted = npt.NDArray[np.bool_]

FLAT_LEVELS = 3.0  # standard deviation of luma, of 255, below which an image is flat: nothing to compare

_MAX_DISTANCE = 10
_BANDS = 4
_BAND_BITS = 16
_FLIPPED = 2  # floor(11 / 4) bits in the band that differs least
_CHUNK = 1 << 21  # candidate pairs in memory at a time
_MAX_CANDIDATES = 400_000_000  # about ten seconds; 100,000 random hashes have 42 million
_MAX_CONFIRMATIONS = 4_000_000  # about twenty seconds

_MIN_CORRELATION = 0.97
_MIN_UNALIGNED_CORRELATION = 0.5
_MAX_GAIN = 1.6  # ratio of the standard deviations of luma
_MAX_BRIGHTNESS = 48.0  # difference of mean luma, levels of 255
_MAX_COLOUR = 16.0  # greatest difference of Cb or Cr in an area, levels of 255
_GREY_COLOUR = 3.0  # greatest distance of Cb and Cr from 128 in an image without colour
_MAX_GAIN_GREY = 1.05  # a grey copy has the same luma
_MAX_BRIGHTNESS_GREY = 4.0
_MARGINS = (0.02, 0.04, 0.06)  # shares of the side that a copy may lose all round


@dataclass(frozen=True)
class Group:
    """Duplicates of each other; `exact` if all have the same content."""

    exact: bool
    images: tuple[DatasetImage, ...]

    @property
    def kind(self) -> str:
        """What the images have in common, in words."""
        return "same content" if self.exact else "near duplicates"

    @cached_property
    def splits(self) -> frozenset[str]:
        return frozenset(image.split for image in self.images)

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(image.label for image in self.images)


@dataclass(frozen=True)
class Duplicates:
    """Groups of at least two images.

    An image with both exact and near copies is in one group of each kind; the near group then holds all of
    them. `complete` is False if too many images look alike to compare them all.
    """

    exact: list[Group]
    near: list[Group]
    complete: bool


def find_duplicates(inspected: Sequence[InspectedImage]) -> Duplicates:
    """Group readable images. Flat ones are no near duplicates: they would all match each other."""
    copies: dict[str, list[DatasetImage]] = defaultdict(list)
    known: dict[str, ImageFacts] = {}
    for image, facts in inspected:
        copies[facts.sha256].append(image)
        known.setdefault(facts.sha256, facts)
    exact = [Group(True, tuple(same)) for same in copies.values() if len(same) > 1]
    contents = [content for content, facts in known.items() if not is_flat(facts)]
    pairs, complete = _near_pairs([known[content] for content in contents])
    near = [
        Group(False, tuple(image for one in members for image in copies[contents[one]]))
        for members in _components(len(contents), pairs)
    ]
    return Duplicates(exact, near, complete)


def is_flat(facts: ImageFacts) -> bool:
    """Whether the image is a single shade at the resolution of 16 x 16 pixels."""
    return float(_luma([facts]).std()) < FLAT_LEVELS


def candidate_pairs(hashes: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """Yield all pairs of hashes at a distance of at most 10, in chunks; a pair may appear up to four times.

    Pairs with an equal band come first. Raises TooManyAlikeError if too many pairs have similar bands.
    """
    bands = [_Band.of(values) for values in _band_values(hashes)]
    examined = 0
    for flipped in range(_FLIPPED + 1):
        for bits in combinations(range(_BAND_BITS), flipped):
            mask = sum(1 << bit for bit in bits)
            for band in bands:
                for first, second in band.partners(mask):
                    examined += len(first)
                    if examined > _MAX_CANDIDATES:
                        raise TooManyAlikeError
                    close = np.bitwise_count(hashes[first] ^ hashes[second]) <= _MAX_DISTANCE
                    yield first[close], second[close]


class TooManyAlikeError(Exception):
    """Too many images look alike to compare them all in reasonable time."""


@dataclass(frozen=True)
class _Band:
    """16 bits of every hash, sorted: the hashes with value v are `order[start[v]:start[v + 1]]`."""

    values: npt.NDArray[np.int64]
    order: Indices
    start: Indices

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> _Band:
        order = np.argsort(values, kind="stable")
        counts = np.bincount(values, minlength=1 << _BAND_BITS)
        return cls(values[order], order, np.concatenate(([0], np.cumsum(counts))))

    def partners(self, mask: int) -> Iterator[tuple[Indices, Indices]]:
        """Pairs whose values differ by exactly the mask, each once, in chunks of bounded size."""
        other = self.values ^ mask
        begin = self.start[other] if mask else np.arange(1, len(self.values) + 1)
        counts = np.where((other > self.values) | (mask == 0), self.start[other + 1] - begin, 0)
        active = np.flatnonzero(counts)
        if not len(active):
            return
        ends = np.cumsum(counts[active])
        cuts = np.searchsorted(ends, np.arange(0, ends[-1], _CHUNK), side="right")
        for low, high in zip(cuts, [*cuts[1:], len(active)], strict=True):
            rows = active[low:high]
            if len(rows):
                yield self._expanded(rows, begin[rows], counts[rows])

    def _expanded(self, rows: Indices, begin: Indices, counts: Indices) -> tuple[Indices, Indices]:
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.order[np.repeat(rows, counts)], self.order[np.repeat(begin, counts) + offsets]


def _band_values(hashes: Hashes) -> Iterator[npt.NDArray[np.int64]]:
    """Bands of every fourth bit, so that each band has its share of low frequencies."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    for band in range(_BANDS):
        packed = np.packbits(bits[:, band::_BANDS], axis=1).astype(np.int64)
        yield packed[:, 0] << 8 | packed[:, 1]


def _near_pairs(contents: Sequence[ImageFacts]) -> tuple[list[tuple[int, int]], bool]:
    """Confirmed pairs, by their indices in `contents`, and whether the search was complete."""
    if len(contents) < 2:
        return [], True
    hashes = np.array([int(facts.phash, 16) for facts in contents], dtype=np.uint64)
    signatures = _Signatures(contents)
    pairs: set[tuple[int, int]] = set()
    confirmations = 0
    try:
        for first, second in candidate_pairs(hashes):
            confirmations += len(first)
            if confirmations > _MAX_CONFIRMATIONS:
                return sorted(pairs), False
            same = signatures.same(first, second)
            one, two = first[same], second[same]
            pairs.update(zip(np.minimum(one, two).tolist(), np.maximum(one, two).tolist(), strict=True))
    except TooManyAlikeError:
        return sorted(pairs), False
    return sorted(pairs), True


class _Signatures:
    """Signatures of images, and whether two of them are of the same image."""

    def __init__(self, contents: Sequence[ImageFacts]) -> None:
        joined = b"".join(facts.signature[LUMA_SIDE**2 :] for facts in contents)
        colours = np.frombuffer(joined, dtype=np.uint8)
        self._chroma = colours.reshape(len(contents), 2 * CHROMA_SIDE**2).astype(np.float32)
        self._luma = _luma(contents)
        self._mean = self._luma.mean(axis=(1, 2))
        self._deviation = self._luma.std(axis=(1, 2))
        self._grey = np.abs(self._chroma - 128).max(axis=1) <= _GREY_COLOUR

    def same(self, first: Indices, second: Indices) -> Accepted:
        """Whether the images `first[i]` and `second[i]` are the same; cheap tests run first."""
        accepted = self._alike(first, second)
        for test in (self._unaligned, self._aligned):
            left = np.flatnonzero(accepted)
            for begin in range(0, len(left), _CHUNK >> 6):
                piece = left[begin : begin + (_CHUNK >> 6)]
                accepted[piece] = test(first[piece], second[piece])
        return accepted

    def _alike(self, first: Indices, second: Indices) -> Accepted:
        """Whether brightness, contrast and colour are close enough."""
        one, two = self._deviation[first], self._deviation[second]
        gain = np.maximum(one, two) / np.maximum(np.minimum(one, two), 1e-6)
        brightness = np.abs(self._mean[first] - self._mean[second])
        colour = np.abs(self._chroma[first] - self._chroma[second]).max(axis=1)
        recoloured = self._grey[first] ^ self._grey[second]
        copied_in_grey = (gain <= _MAX_GAIN_GREY) & (brightness <= _MAX_BRIGHTNESS_GREY)
        copied = (gain <= _MAX_GAIN) & (brightness <= _MAX_BRIGHTNESS) & (colour <= _MAX_COLOUR)
        return np.asarray(np.where(recoloured, copied_in_grey, copied))

    def _unaligned(self, first: Indices, second: Indices) -> Accepted:
        return np.asarray(_correlation(self._luma[first], self._luma[second]) >= _MIN_UNALIGNED_CORRELATION)

    def _aligned(self, first: Indices, second: Indices) -> Accepted:
        one, two = self._luma[first], self._luma[second]
        best = _correlation(one, two)
        for margin in _MARGINS:
            best = np.maximum(best, _correlation(_cropped(one, margin), two))
            best = np.maximum(best, _correlation(one, _cropped(two, margin)))
        return np.asarray(best >= _MIN_CORRELATION)


def _luma(contents: Sequence[ImageFacts]) -> Pixels:
    """Luma of the signatures: shape (contents, 16, 16), levels of 0 to 255."""
    joined = b"".join(facts.signature[: LUMA_SIDE**2] for facts in contents)
    shape = (len(contents), LUMA_SIDE, LUMA_SIDE)
    return np.frombuffer(joined, dtype=np.uint8).reshape(shape).astype(np.float32)


def _correlation(one: Pixels, two: Pixels) -> Pixels:
    """Pearson's correlation of the pixels, for each pair of images."""
    one = one - one.mean(axis=(1, 2), keepdims=True)
    two = two - two.mean(axis=(1, 2), keepdims=True)
    energy = np.sqrt(np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", two, two))
    return np.asarray(np.einsum("nij,nij->n", one, two) / np.maximum(energy, 1e-6))


def _cropped(luma: Pixels, margin: float) -> Pixels:
    """Luma of the images, cropped all round by a share of the side.

    Interpolates linearly between pixel centres, as a product with the same matrix on both sides.
    """
    centres = margin + (1 - 2 * margin) * (np.arange(LUMA_SIDE) + 0.5) / LUMA_SIDE
    position = np.clip(centres * LUMA_SIDE - 0.5, 0, LUMA_SIDE - 1)
    lower = np.minimum(position.astype(int), LUMA_SIDE - 2)
    weight = position - lower
    rows = np.arange(LUMA_SIDE)
    matrix = np.zeros((LUMA_SIDE, LUMA_SIDE), dtype=np.float32)
    matrix[rows, lower] = 1 - weight
    matrix[rows, lower + 1] += weight
    return np.asarray(matrix @ luma @ matrix.T, dtype=np.float32)


def _components(size: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Connected components of two or more nodes, by union-find with path halving."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, two in pairs:
        parent[root(two)] = root(one)
    members: dict[int, list[int]] = defaultdict(list)
    for node in sorted({node for pair in pairs for node in pair}):
        members[root(node)].append(node)
    return list(members.values())
