"""The time the endpoint's code takes for one image on this CPU, from the file's bytes to the response."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from classifier.prediction import Classifier

from evaluation.candidates import Candidate

Respond = Callable[[Classifier, bytes], None]
"""Handles one request; the bytes are those of an image file."""

WARM_UP = 5
"""Unmeasured requests to each model: the first ones allocate memory and choose kernels."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a single image, without network and server."""

    median_ms: float
    p95_ms: float
    images: int
    threads: int


def measure_latency(
    candidates: Sequence[Candidate], files: Sequence[Path], images: int, respond: Respond
) -> dict[str, Latency]:
    """Each role's latency on up to `images` images spread over `files`.

    The candidates take turns, so that other load on the machine slows all of them.
    """
    cpu = torch.device("cpu")
    classifiers = {c.role: Classifier(c.model.to(cpu).eval(), c.card, cpu) for c in candidates}
    seconds: dict[str, list[float]] = {role: [] for role in classifiers}
    chosen = np.unique(np.linspace(0, len(files) - 1, images).astype(int)).tolist()
    for index in chosen[:WARM_UP]:
        for _ in _timed(classifiers, files[index].read_bytes(), respond):
            pass
    for index in chosen:
        for role, elapsed in _timed(classifiers, files[index].read_bytes(), respond):
            seconds[role].append(elapsed)
    return {
        role: Latency(
            float(np.median(values)) * 1000,
            float(np.percentile(values, 95)) * 1000,
            len(values),
            torch.get_num_threads(),
        )
        for role, values in seconds.items()
    }


def _timed(classifiers: dict[str, Classifier], body: bytes, respond: Respond) -> Iterator[tuple[str, float]]:
    for role, classifier in classifiers.items():
        started = time.perf_counter()
        respond(classifier, body)
        yield role, time.perf_counter() - started
