"""The candidates' probabilities for the test images, over the union of their classes."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from classifier.data import (
    ImageDataset,
    Listing,
    LoaderOptions,
    evaluation_loader,
    list_images,
    read_left_out,
)
from classifier.engine import evaluate
from classifier.errors import DatasetValueError, ModelValueError
from numpy.typing import NDArray
from torch import nn

from evaluation.candidates import Candidate

logger = logging.getLogger(__name__)

CHUNK = 256
"""Images decoded at once for all candidates; progress is logged after each chunk."""


@dataclass(frozen=True)
class TestSet:
    """The test images; `labels` (shape (images,)) index `classes`, the union of the candidates' classes."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: NDArray[np.int64]

    @property
    def keys(self) -> list[str]:
        """`<class>/<image>` of each image: its S3 key below the prefix of the test split."""
        return [file.relative_to(self.root).as_posix() for file in self.files]

    @property
    def present(self) -> set[str]:
        """The classes that have test images."""
        return {self.classes[index] for index in np.unique(self.labels).tolist()}


def read_test_set(root: Path, candidates: Sequence[Candidate], left_out: Path | None = None) -> TestSet:
    """List the test images. Raises DatasetValueError for a class folder that no candidate knows."""
    if not root.is_dir():
        raise DatasetValueError(
            f"the test split is missing: {root} is not a folder. Give the job an input with the "
            "prefix of the test split's class folders"
        )
    classes = tuple(sorted({name for candidate in candidates for name in candidate.card.classes}))
    listing = list_images("test", root, left_out=read_left_out(left_out))
    unknown = [name for name in listing.classes if name not in classes]
    if unknown:
        raise DatasetValueError(
            f"the test split has class folders that no model knows: {', '.join(unknown)}. "
            "Train with them, or remove them from the test split"
        )
    positions = np.array([classes.index(name) for name in listing.classes])
    return TestSet(root, classes, listing.files, positions[np.array(listing.labels)])


class UnionScores(nn.Module):
    """A candidate's scores over the union of classes; classes that it does not know get probability 0."""

    def __init__(self, candidate: Candidate, classes: Sequence[str]) -> None:
        super().__init__()
        self.model = candidate.model
        self.width = len(classes)
        self.columns = [classes.index(name) for name in candidate.card.classes]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Scores for a batch (N, 3, H, W): shape (N, classes of the union)."""
        scores: torch.Tensor = self.model(batch)
        arranged = scores.new_full((len(scores), self.width), -torch.inf)
        arranged[:, self.columns] = scores
        return arranged


def predict_probabilities(
    candidates: Sequence[Candidate], test: TestSet, batch_size: int, device: torch.device
) -> dict[str, NDArray[np.float64]]:
    """Each role's probabilities, shape (images, classes of the union), in the order of the test set.

    A chunk of images is decoded once per input size for all candidates. Raises DatasetValueError that names
    the unreadable images of a chunk, and ModelValueError for a model whose scores are not finite.
    """
    found: dict[str, list[NDArray[np.float64]]] = {candidate.role: [] for candidate in candidates}
    models = {c.role: UnionScores(c, test.classes).to(device) for c in candidates}
    loading = LoaderOptions(batch_size, workers=0)
    started = time.monotonic()
    for start in range(0, len(test.files), CHUNK):
        chunk = _listing(test, slice(start, start + CHUNK))
        decoded = {
            size: ImageDataset(chunk, size, cache_bytes=sys.maxsize)
            for size in {candidate.card.image_size for candidate in candidates}
        }
        for candidate in candidates:
            loader = evaluation_loader(decoded[candidate.card.image_size], loading)
            result = evaluate(models[candidate.role], nn.CrossEntropyLoss(), loader, device)
            found[candidate.role].append(result.probabilities.double().numpy())
        done = min(start + CHUNK, len(test.files))
        logger.info(
            "evaluated %d of %d test images in %.0f s", done, len(test.files), time.monotonic() - started
        )
    return {role: _finite(role, np.concatenate(chunks)) for role, chunks in found.items()}


def _listing(test: TestSet, part: slice) -> Listing:
    return Listing("test", test.classes, test.files[part], tuple(test.labels[part].tolist()))


def _finite(role: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    broken = int((~np.isfinite(values).all(axis=1)).sum())
    if broken:
        raise ModelValueError(
            f"the {role}'s scores for {broken} of {len(values)} test images are not finite: "
            "neither are its weights, so train it again with a lower learning rate"
        )
    return values
