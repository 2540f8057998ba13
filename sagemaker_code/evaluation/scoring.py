"""What the candidates answer on the test pictures, over the union of their classes."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import Listing, LoaderOptions, PictureDataset, evaluation_loader, list_pictures
from engine import evaluate
from errors import DatasetValueError, ModelValueError
from numpy.typing import NDArray
from torch import nn

from evaluation.candidates import Candidate

logger = logging.getLogger(__name__)

CHUNK = 256
"""Pictures decoded at a time, for all candidates, and the step of the progress that is logged."""


@dataclass(frozen=True)
class TestSet:
    """The test pictures; `labels` are indices into `classes`, the union of the candidates' classes."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: NDArray[np.int64]

    @property
    def keys(self) -> list[str]:
        """`<class>/<picture>` of each picture: its S3 key after the prefix of the test split."""
        return [file.relative_to(self.root).as_posix() for file in self.files]


def read_test_set(root: Path, candidates: Sequence[Candidate]) -> TestSet:
    """List the test pictures; every class folder must be a class of at least one candidate."""
    if not root.is_dir():
        raise DatasetValueError(
            f"the test split is missing: {root} is no folder. Give the job an input of the prefix with the "
            "test split's class folders"
        )
    classes = tuple(sorted({name for candidate in candidates for name in candidate.card.classes}))
    listing = list_pictures("test", root)
    strangers = [name for name in listing.classes if name not in classes]
    if strangers:
        raise DatasetValueError(
            f"the test split has class folders that no model knows: {', '.join(strangers)}. "
            "Train with them, or take them out of the test split"
        )
    positions = np.array([classes.index(name) for name in listing.classes])
    return TestSet(root, classes, listing.files, positions[np.array(listing.labels)])


class UnionScores(nn.Module):
    """A candidate whose scores are arranged over the union of classes; those it lacks get probability 0."""

    def __init__(self, candidate: Candidate, classes: Sequence[str]) -> None:
        super().__init__()
        self.model = candidate.model
        self.width = len(classes)
        self.columns = [classes.index(name) for name in candidate.card.classes]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Scores of shape (N, classes of the union)."""
        scores: torch.Tensor = self.model(batch)
        arranged = scores.new_full((len(scores), self.width), -torch.inf)
        arranged[:, self.columns] = scores
        return arranged


def probabilities(
    candidates: Sequence[Candidate], test: TestSet, batch_size: int, device: torch.device
) -> dict[str, NDArray[np.float64]]:
    """Each role's probabilities, shape (pictures, classes of the union), in the order of the test set.

    A chunk of pictures is decoded once per input size and shown to all candidates. Raises DatasetValueError
    that names the unreadable pictures of a chunk, and ModelValueError for a model that answers no numbers.
    """
    answers: dict[str, list[NDArray[np.float64]]] = {candidate.role: [] for candidate in candidates}
    models = {c.role: UnionScores(c, test.classes).to(device) for c in candidates}
    loading = LoaderOptions(batch_size, workers=0)
    started = time.monotonic()
    for start in range(0, len(test.files), CHUNK):
        chunk = _listing(test, slice(start, start + CHUNK))
        decoded = {
            size: PictureDataset(chunk, size, cache_bytes=sys.maxsize)
            for size in {candidate.card.image_size for candidate in candidates}
        }
        for candidate in candidates:
            loader = evaluation_loader(decoded[candidate.card.image_size], loading)
            result = evaluate(models[candidate.role], nn.CrossEntropyLoss(), loader, device)
            answers[candidate.role].append(result.probabilities.double().numpy())
        done = min(start + CHUNK, len(test.files))
        logger.info(
            "evaluated %d of %d test pictures in %.0f s", done, len(test.files), time.monotonic() - started
        )
    return {role: _finite(role, np.concatenate(chunks)) for role, chunks in answers.items()}


def _listing(test: TestSet, part: slice) -> Listing:
    return Listing("test", test.classes, test.files[part], tuple(test.labels[part].tolist()))


def _finite(role: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    broken = int((~np.isfinite(values).all(axis=1)).sum())
    if broken:
        raise ModelValueError(
            f"the {role} answers {broken} of {len(values)} test pictures with scores that are no numbers: "
            "its weights are not finite, so train it again with a lower learning rate"
        )
    return values
