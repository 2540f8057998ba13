"""The steps of an evaluation job: read the models, measure them, write the results, log the main metrics."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from evaluation import results
from evaluation.bootstrap import Resampling
from evaluation.candidates import Candidate, read_candidate
from evaluation.charts import draw_all
from evaluation.comparison import Comparison
from evaluation.latency import Respond, measure_latency
from evaluation.model_metrics import ModelMetrics
from evaluation.scoring import TestSet, predict_probabilities

logger = logging.getLogger("evaluate")


def read_candidates(challenger: Path, champion: Path | None, scratch: Path) -> list[Candidate]:
    """The challenger and, if there is one, the champion. Raises ModelValueError."""
    sources = {"challenger": challenger, "champion": champion}
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
    if champion is None:
        logger.info("no champion: the challenger is evaluated alone")
    return candidates


def log_classes(test: TestSet, candidates: Sequence[Candidate]) -> None:
    """Log the size of the test set, the classes that a model does not know, and those without test images."""
    logger.info("%d test images, %d classes", len(test.files), len(test.classes))
    for candidate in candidates:
        unknown = [name for name in test.classes if name not in candidate.card.classes]
        if unknown:
            logger.warning("the %s does not know %s", candidate.role, ", ".join(unknown))
    missing = [name for name in test.classes if name not in test.present]
    if missing:
        logger.warning("no test images of %s: nothing is known about them", ", ".join(missing))


def measure(
    candidates: Sequence[Candidate], test: TestSet, batch_size: int, latency_images: int, respond: Respond
) -> dict[str, ModelMetrics]:
    """Each role's metrics, predicted on a GPU if there is one; latency is always the CPU's."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    probabilities = predict_probabilities(candidates, test, batch_size, device)
    if latency_images:
        logger.info("timing %d single images on the CPU", min(latency_images, len(test.files)))
    latencies = measure_latency(candidates, test.files, latency_images, respond) if latency_images else {}
    return {
        candidate.role: ModelMetrics(
            candidate, test.labels, probabilities[candidate.role], latencies.get(candidate.role)
        )
        for candidate in candidates
    }


def write_results(
    test: TestSet,
    models: dict[str, ModelMetrics],
    comparison: Comparison | None,
    resampling: Resampling,
    folder: Path,
) -> None:
    """Write charts and documents; evaluation.json comes last, so where it exists everything does."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = draw_all(test, models, comparison.classes if comparison else [], folder)
    results.write_json_lines(folder / "predictions.jsonl", results.predictions(test, models))
    quality = results.model_quality(test, models["challenger"], resampling)
    results.write_json(folder / "model_quality.json", quality)
    document = results.evaluation(test, models, comparison, charts)
    results.write_json(folder / "evaluation.json", document)
    logger.info("wrote evaluation.json, model_quality.json, predictions.jsonl and %s", ", ".join(charts))


def log_results(models: dict[str, ModelMetrics], comparison: Comparison | None) -> None:
    """Log the main metrics of each model and each difference between them."""
    for role, metrics in models.items():
        latency = metrics.latency
        logger.info(
            "%s accuracy=%.4f top5_accuracy=%.4f macro_f1=%.4f calibration_error=%.4f latency_ms=%s",
            role,
            metrics.counts.accuracy,
            metrics.top_k_accuracy,
            metrics.counts.macro_f1,
            metrics.calibration.error,
            f"{latency.median_ms:.1f}" if latency else "not measured",
        )
    if comparison:
        for name in ("accuracy", "macro_f1"):
            part = comparison.document[name]
            logger.info(
                "difference %s=%+.4f interval=[%+.4f, %+.4f]", name, part["difference"], *part["interval"]
            )
