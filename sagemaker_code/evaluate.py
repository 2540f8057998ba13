"""Compare a challenger with the champion in service on the same test pictures: a SageMaker Processing job.

Reads both models as training leaves them and writes figures, the answers to each picture and charts. Without
a champion the challenger's figures are all there is. `evaluation/results.py` describes the files.
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from arguments import base_dir, integer, number
from errors import InputValueError
from evaluation import results
from evaluation.bootstrap import Resampling
from evaluation.candidates import Candidate, read_candidate
from evaluation.charts import draw_all
from evaluation.comparison import Comparison, compare
from evaluation.figures import ModelFigures
from evaluation.latency import measure
from evaluation.scoring import TestSet, probabilities, read_test_set

logger = logging.getLogger("evaluate")

MESSAGE_BYTES = 1024
"""What SageMaker shows of a processing job's message."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read the models and the test pictures, evaluate, compare, write."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    logging.getLogger("data").setLevel(logging.WARNING)  # it reports every chunk of pictures
    arguments = parse_arguments(argv)
    resampling = Resampling(arguments.bootstrap_samples, arguments.confidence, arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        candidates = read_candidates(arguments, Path(scratch))
    test = read_test_set(arguments.test, candidates)
    report_classes(test, candidates)

    models = figures_of(candidates, test, arguments.batch_size, arguments.latency_images)
    comparison = None
    if "champion" in models:
        logger.info("comparing the models on %d resamples of the test pictures", resampling.samples)
        comparison = compare(test, models["challenger"], models["champion"], resampling)
    write_results(test, models, comparison, resampling, arguments.output)
    report(models, comparison)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `champion` is None where none is named and SageMaker put none in its place."""
    processing = base_dir() / "processing"
    champion = processing / "input/champion"
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--challenger", type=Path, default=processing / "input/challenger", help="folder or model.tar.gz")
    add(
        "--champion",
        type=Path,
        default=champion if champion.exists() else None,
        help=f"folder or model.tar.gz; {champion} if it exists",
    )
    add("--test", type=Path, default=processing / "input/test", help="folder of class folders")
    add("--output", type=Path, default=processing / "output", help="folder for the results")
    add("--batch-size", type=integer(1, 4096), default=32, help="pictures a model is shown at a time")
    add(
        "--latency-images",
        type=integer(0, 100_000),
        default=50,
        help="pictures to time one by one on the CPU; 0: none",
    )
    add("--bootstrap-samples", type=integer(100, 1_000_000), default=2000, help="resamples of the test set")
    add("--confidence", type=number(0.5, 0.9999), default=0.95, help="of intervals and bounds")
    add("--seed", type=integer(0, 2**31 - 1), default=0, help="of the bootstrap")
    return parser.parse_args(argv)


def read_candidates(arguments: argparse.Namespace, scratch: Path) -> list[Candidate]:
    """The challenger and, if there is one, the champion."""
    sources = {"challenger": arguments.challenger, "champion": arguments.champion}
    candidates = [read_candidate(role, source, scratch) for role, source in sources.items() if source]
    for candidate in candidates:
        logger.info(
            "%s: %s at %d pixels, %d classes, %s",
            candidate.role,
            candidate.card.arch,
            candidate.card.image_size,
            len(candidate.card.classes),
            candidate.source,
        )
    if arguments.champion is None:
        logger.info("no champion: the challenger is evaluated alone")
    return candidates


def report_classes(test: TestSet, candidates: Sequence[Candidate]) -> None:
    """Say what is tested, and which classes not all models know or no picture shows."""
    logger.info("%d test pictures, %d classes", len(test.files), len(test.classes))
    for candidate in candidates:
        unknown = [name for name in test.classes if name not in candidate.card.classes]
        if unknown:
            logger.warning("the %s does not know %s", candidate.role, ", ".join(unknown))
    present = set(test.labels.tolist())
    missing = [name for index, name in enumerate(test.classes) if index not in present]
    if missing:
        logger.warning("no test pictures of %s: nothing is known about them", ", ".join(missing))


def figures_of(
    candidates: Sequence[Candidate], test: TestSet, batch_size: int, latency_images: int
) -> dict[str, ModelFigures]:
    """Each role's figures; on a GPU if there is one, but latency always on the CPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    answers = probabilities(candidates, test, batch_size, device)
    if latency_images:
        logger.info("timing %d single pictures on the CPU", min(latency_images, len(test.files)))
    latencies = measure(candidates, test.files, latency_images) if latency_images else {}
    return {
        candidate.role: ModelFigures(
            candidate, test.labels, answers[candidate.role], latencies.get(candidate.role)
        )
        for candidate in candidates
    }


def write_results(
    test: TestSet,
    models: dict[str, ModelFigures],
    comparison: Comparison | None,
    resampling: Resampling,
    folder: Path,
) -> None:
    """Write charts and documents; evaluation.json last, so that it stands for all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = draw_all(test, models, comparison.classes if comparison else [], folder)
    results.write_json_lines(folder / "predictions.jsonl", results.predictions(test, models))
    quality = results.model_quality(test, models["challenger"], resampling)
    results.write_json(folder / "model_quality.json", quality)
    document = results.evaluation(test, models, comparison, charts)
    results.write_json(folder / "evaluation.json", document)
    logger.info("wrote evaluation.json, model_quality.json, predictions.jsonl and %s", ", ".join(charts))


def report(models: dict[str, ModelFigures], comparison: Comparison | None) -> None:
    """The main figures in the log, a line for each model and for each difference."""
    for role, figures in models.items():
        latency = figures.latency
        logger.info(
            "%s accuracy=%.4f top5_accuracy=%.4f macro_f1=%.4f calibration_error=%.4f latency_ms=%s",
            role,
            figures.counts.accuracy,
            figures.top_k_accuracy,
            figures.counts.macro_f1,
            figures.calibration.error,
            f"{latency.median_ms:.1f}" if latency else "not measured",
        )
    if comparison:
        for name in ("accuracy", "macro_f1"):
            part = comparison.document[name]
            logger.info(
                "difference %s=%+.4f interval=[%+.4f, %+.4f]", name, part["difference"], *part["interval"]
            )


def leave_message(text: str) -> None:
    """Leave the reason of a failure where SageMaker takes a processing job's ExitMessage from."""
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
