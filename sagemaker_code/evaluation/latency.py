"""How long one picture takes on this instance's CPU, from the file's bytes to the JSON answer."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from inference import ANSWER_TYPE, Classifier, input_fn, output_fn, predict_fn

from evaluation.candidates import Candidate

WARM_UP = 5
"""Unmeasured requests to each model: the first ones allocate memory and choose kernels."""
CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a single picture, without network and server."""

    median_ms: float
    p95_ms: float
    images: int
    threads: int


def measure(candidates: Sequence[Candidate], files: Sequence[Path], images: int) -> dict[str, Latency]:
    """Each role's latency on up to `images` pictures spread over `files`, through the endpoint's functions.

    The candidates answer by turns, so that whatever else the machine does slows all of them.
    """
    cpu = torch.device("cpu")
    classifiers = {c.role: Classifier(c.model.to(cpu).eval(), c.card, cpu) for c in candidates}
    seconds: dict[str, list[float]] = {role: [] for role in classifiers}
    chosen = np.unique(np.linspace(0, len(files) - 1, images).astype(int)).tolist()
    for index in chosen[:WARM_UP]:
        for _ in _timed(classifiers, files[index].read_bytes()):
            pass
    for index in chosen:
        for role, elapsed in _timed(classifiers, files[index].read_bytes()):
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


def _timed(classifiers: dict[str, Classifier], body: bytes) -> Iterator[tuple[str, float]]:
    for role, classifier in classifiers.items():
        started = time.perf_counter()
        output_fn(predict_fn(input_fn(body, CONTENT_TYPE), classifier), ANSWER_TYPE)
        yield role, time.perf_counter() - started
