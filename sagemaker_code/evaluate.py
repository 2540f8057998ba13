"""Entry point of the Processing job that compares challenger and champion on the same test images.

Reads both models as training leaves them and writes metrics, predictions and charts. Without a champion, the
challenger is evaluated alone. `evaluation/results.py` describes the files.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from classifier.arguments import Limits, base_dir
from classifier.errors import InputValueError
from classifier.prediction import Classifier
from classifier.requests import RESPONSE_TYPE, answer
from evaluation import job
from evaluation.bootstrap import Resampling
from evaluation.comparison import compare
from evaluation.kept_images import keep_images
from evaluation.scoring import read_test_set

logger = logging.getLogger("evaluate")

MESSAGE_BYTES = 1024
"""Longest ExitMessage of a processing job."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the models and the test images, evaluate, compare, write. Raises InputValueError for bad input."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("classifier.data").setLevel(logging.WARNING)  # it logs every chunk of images
    arguments = parse_arguments(argv)
    resampling = Resampling(arguments.bootstrap_samples, arguments.confidence, arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        candidates = job.read_candidates(arguments.challenger, arguments.champion, Path(scratch))
    test = read_test_set(arguments.test, candidates, arguments.left_out)
    job.log_classes(test, candidates)

    models = job.measure(candidates, test, arguments.batch_size, arguments.latency_images, respond)
    comparison = None
    if "champion" in models:
        logger.info("comparing the models on %d resamples of the test images", resampling.samples)
        comparison = compare(test, models["challenger"], models["champion"], resampling)
    kept = keep_images(test, arguments.kept_images, arguments.output)
    logger.info("kept %d test images with the results", kept)
    job.write_results(test, models, comparison, resampling, arguments.output)
    job.log_results(models, comparison)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `champion` is None if none is given and SageMaker provided none."""
    processing = base_dir() / "processing"
    champion = processing / "input/champion"
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--challenger", type=Path, default=processing / "input/challenger", help="folder or model.tar.gz")
    default = champion if champion.exists() else None
    add("--champion", type=Path, default=default, help=f"folder or model.tar.gz; {champion} if it exists")
    add("--test", type=Path, default=processing / "input/test", help="folder of class folders")
    add("--left-out", type=Path, help="folder with a list of images that are not used")
    add("--output", type=Path, default=processing / "output", help="folder for the results")
    kept = Limits(0, 1_000_000, whole=True)
    add("--kept-images", type=kept, default=0, help="test images to keep with the results, of all classes")
    add("--batch-size", type=Limits(1, 4096, whole=True), default=32, help="images per forward pass")
    timed, resamples = Limits(0, 100_000, whole=True), Limits(100, 1_000_000, whole=True)
    add("--latency-images", type=timed, default=50, help="images to time one by one on the CPU; 0: none")
    add("--bootstrap-samples", type=resamples, default=2000, help="resamples of the test set")
    add("--confidence", type=Limits(0.5, 0.9999), default=0.95, help="of intervals and bounds")
    add("--seed", type=Limits(0, 2**31 - 1, whole=True), default=0, help="of the bootstrap")
    return parser.parse_args(argv)


def respond(classifier: Classifier, body: bytes) -> None:
    """Handle one request as the endpoint does, from the bytes of an image to the JSON response."""
    answer(classifier, body, "application/octet-stream", RESPONSE_TYPE)


def leave_message(text: str) -> None:
    """Write the reason of a failure to where SageMaker reads a processing job's ExitMessage from."""
    if base_dir().is_dir():
        output = base_dir() / "output"
        output.mkdir(exist_ok=True)
        (output / "message").write_bytes(text.encode()[:MESSAGE_BYTES])


if __name__ == "__main__":
    try:
        main()
    except InputValueError as error:
        reason = f"{type(error).__name__}: {error}"
        leave_message(reason)
        sys.exit(reason)
