"""Pictures that show the same: exact copies by their content, near ones by perceptual hash and signature.

The search for near duplicates takes two steps, neither of which compares all pictures with each other.

1. Candidates have DCT hashes (pHash, Zauner 2010, by ImageHash) at a Hamming distance of at most 10 of 64
   bits. Multi-index hashing (Norouzi, Punjani and Fleet, 2012) finds all of them: the 64 bits are cut into
   four bands of 16, and by the pigeonhole principle two hashes that differ in up to 11 bits differ in at most
   two bits of one band at least. So every band of every hash is looked up with each of the 137 ways to flip
   up to two bits.
2. A candidate is confirmed by the pictures' signatures: the normalised correlation of 16 x 16 pixels of luma,
   at best over margins cut off from either picture, is at least 0.97, and brightness, contrast and the
   colours of 4 x 4 areas differ no more than they do between copies. A grey copy has other colours, but the
   same luma.

The limits were set by pictures changed and saved again as JPEG: 300 photographs of dogs at 64 px, and 300
drawn dogs at 96 px, which are alike in composition. Found, in per cent of the photographs / the drawings:

    quality 60, quality 30, half size, 1.5 times the size, other aspect ratio, grey    100 / 100
    brightness 0.8, 1.1, 1.25                                              99, 99, 98 / 100, 100, 86
    contrast 1.2, saturation 1.3                                               99, 99 / 100, 100
    margins of 2, 4, 6 % of the side cut off                               97, 33, 21 / 99, 64, 24

Mirrored and rotated copies are not found. Called duplicates though they are not: none of the 4.7 million
pairs of 3,060 photographs (the one pair found is one) and none of the 1.5 million pairs of 2,600 drawings.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from retraining.dataset.images import CHROMA_SIDE, LUMA_SIDE, Look
from retraining.dataset.listing import Picture

log = logging.getLogger(__name__)

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.float32]
Accepted = npt.NDArray[np.bool_]
Seen = tuple[Picture, Look]

FLAT_LEVELS = 3.0  # standard deviation of luma, of 255, below which a picture shows nothing to compare

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
_GREY_COLOUR = 3.0  # greatest distance of Cb and Cr from 128 in a picture without colour
_MAX_GAIN_GREY = 1.05  # a grey copy has the luma of the picture
_MAX_BRIGHTNESS_GREY = 4.0
_MARGINS = (0.02, 0.04, 0.06)  # parts of the side cut off all round, by which a copy may be cropped


@dataclass(frozen=True)
class Group:
    """Pictures that show the same; `exact` if all have the same content."""

    exact: bool
    pictures: tuple[Picture, ...]

    @property
    def kind(self) -> str:
        """What makes it a group, in words."""
        return "same content" if self.exact else "near duplicates"

    @cached_property
    def splits(self) -> frozenset[str]:
        return frozenset(picture.split for picture in self.pictures)

    @cached_property
    def labels(self) -> frozenset[str]:
        return frozenset(picture.label for picture in self.pictures)


@dataclass(frozen=True)
class Duplicates:
    """Groups of at least two pictures.

    A picture that has both exact and near copies is in a group of either kind: the near group holds all. The
    search is not `complete` where more pictures look alike than can be compared.
    """

    exact: list[Group]
    near: list[Group]
    complete: bool


def find_duplicates(seen: Sequence[Seen]) -> Duplicates:
    """Group pictures that could be decoded. Flat ones have no near duplicates, as they would all be alike."""
    copies: dict[str, list[Picture]] = defaultdict(list)
    looks: dict[str, Look] = {}
    for picture, look in seen:
        copies[look.sha256].append(picture)
        looks.setdefault(look.sha256, look)
    exact = [Group(True, tuple(same)) for same in copies.values() if len(same) > 1]
    contents = [content for content, look in looks.items() if not is_flat(look)]
    pairs, complete = _near_pairs([looks[content] for content in contents])
    near = [
        Group(False, tuple(picture for one in members for picture in copies[contents[one]]))
        for members in _components(len(contents), pairs)
    ]
    return Duplicates(exact, near, complete)


def is_flat(look: Look) -> bool:
    """Whether the picture shows one shade of grey, as far as 16 x 16 pixels tell."""
    return float(_luma([look]).std()) < FLAT_LEVELS


def candidate_pairs(hashes: Hashes) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of hashes at a distance of at most 10, in pieces; a pair may come up to four times.

    Pairs whose bands are equal come before those in which bits differ. Raises TooManyAlikeError where pairs
    that share a band are too many to compare.
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
    """More pictures look alike than can be compared in reasonable time."""


@dataclass(frozen=True)
class _Band:
    """16 bits of every hash, sorted: those with value v are `order[start[v]:start[v + 1]]`."""

    values: npt.NDArray[np.int64]
    order: Indices
    start: Indices

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> _Band:
        order = np.argsort(values, kind="stable")
        counts = np.bincount(values, minlength=1 << _BAND_BITS)
        return cls(values[order], order, np.concatenate(([0], np.cumsum(counts))))

    def partners(self, mask: int) -> Iterator[tuple[Indices, Indices]]:
        """Pairs whose values differ by exactly the mask, each once, in pieces of bounded size."""
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
    """Every fourth bit of the hashes, so that each band has its share of low frequencies."""
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    for band in range(_BANDS):
        packed = np.packbits(bits[:, band::_BANDS], axis=1).astype(np.int64)
        yield packed[:, 0] << 8 | packed[:, 1]


def _near_pairs(looks: Sequence[Look]) -> tuple[list[tuple[int, int]], bool]:
    """Confirmed pairs, by their places in `looks`, and whether the search was complete."""
    if len(looks) < 2:
        return [], True
    hashes = np.array([int(look.phash, 16) for look in looks], dtype=np.uint64)
    signatures = _Signatures(looks)
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
    """The signatures of pictures, and whether two of them are of the same picture."""

    def __init__(self, looks: Sequence[Look]) -> None:
        colours = np.frombuffer(b"".join(look.signature[LUMA_SIDE**2 :] for look in looks), dtype=np.uint8)
        self._chroma = colours.reshape(len(looks), 2 * CHROMA_SIDE**2).astype(np.float32)
        self._luma = _luma(looks)
        self._mean = self._luma.mean(axis=(1, 2))
        self._deviation = self._luma.std(axis=(1, 2))
        self._grey = np.abs(self._chroma - 128).max(axis=1) <= _GREY_COLOUR

    def same(self, first: Indices, second: Indices) -> Accepted:
        """Whether the pictures `first[i]` and `second[i]` are the same, from cheap tests to dear ones."""
        accepted = self._alike(first, second)
        for test in (self._unaligned, self._aligned):
            left = np.flatnonzero(accepted)
            for begin in range(0, len(left), _CHUNK >> 6):
                piece = left[begin : begin + (_CHUNK >> 6)]
                accepted[piece] = test(first[piece], second[piece])
        return accepted

    def _alike(self, first: Indices, second: Indices) -> Accepted:
        """By brightness, contrast and colour."""
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


def _luma(looks: Sequence[Look]) -> Pixels:
    """Shape (looks, 16, 16), levels of 0 to 255."""
    joined = b"".join(look.signature[: LUMA_SIDE**2] for look in looks)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(looks), LUMA_SIDE, LUMA_SIDE).astype(np.float32)


def _correlation(one: Pixels, two: Pixels) -> Pixels:
    """Pearson's correlation of the pixels of each pair of pictures."""
    one = one - one.mean(axis=(1, 2), keepdims=True)
    two = two - two.mean(axis=(1, 2), keepdims=True)
    energy = np.sqrt(np.einsum("nij,nij->n", one, one) * np.einsum("nij,nij->n", two, two))
    return np.asarray(np.einsum("nij,nij->n", one, two) / np.maximum(energy, 1e-6))


def _cropped(luma: Pixels, margin: float) -> Pixels:
    """The luma of pictures without their margins, which are given as a part of the side.

    Interpolates linearly between the centres of pixels, by a product with a matrix from either side.
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
    """Connected components of at least two nodes, by union-find with path halving."""
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


def shortened(pictures: Sequence[Picture], most: int) -> str:
    """The paths of some pictures, and how many more there are."""
    named = " = ".join(picture.path for picture in islice(pictures, most))
    return named if len(pictures) <= most else f"{named} and {len(pictures) - most} more"
