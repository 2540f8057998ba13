"""The endpoint, asked what it was deployed for: does it serve the new model, and as well as offline?

If not, the configuration before comes back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.dataset import manifest
from retraining.deployment.agreement import Offline, compare, offline_predictions
from retraining.deployment.endpoint import Watch, restore, serving
from retraining.deployment.predictions import ask, latency, sample, test_keys, test_prefix
from retraining.errors import DeploymentError, VerificationError
from retraining.planning.deployment import STARTUP_SECONDS
from retraining.registry.registry import proved, rejected_or_logged

log = logging.getLogger(__name__)

Result = Mapping[str, Any]

# With this many standard errors between them, the endpoint's accuracy on a sample is not that of the trained
# model.
_STANDARD_ERRORS = 4.0
_SHOWN_DIFFERENCES = 3


def verify_endpoint(
    *,
    pipeline: Pipeline,
    dataset: Result,
    training: Result,
    evaluation: Result,
    endpoint: Result,
    package: Result,
    aws: Aws,
) -> dict[str, Any]:
    """Send test pictures, spread evenly over the classes, and compare the answers with the evaluation's.

    A picture that was replaced since the run checked the data set is passed over. Without offline predictions
    of the others, their accuracy has to be that of the training job.
    A model that passes is live in the registry from then on. One that does not is rejected there, and the
    endpoint's configuration before it is restored.

    Returns `{endpoint, config, images, compared, accuracy, trained_accuracy, agreement,
    max_probability_difference, latency_ms: {median, p95, max}, predictions: [{image, class, predicted,
    probability, milliseconds, top, offline}]}`; `agreement` is the share of the `compared` pictures with the
    same class as offline; `predictions` are the first of each class, as many as the pipeline shows.
    Raises VerificationError, which says why and what is in service now.
    """
    check_in_service(aws, endpoint["name"], endpoint["config"])
    try:
        result = _examine(
            pipeline=pipeline,
            dataset=dataset,
            training=training,
            evaluation=evaluation,
            endpoint=endpoint,
            aws=aws,
        )
    except VerificationError as error:
        raise VerificationError(f"{error} {_go_back(aws, endpoint, package, str(error))}") from error
    proved(aws, package["arn"], datetime.now(UTC), endpoint["config"])
    return result


def check_in_service(aws: Aws, endpoint: str, config: str) -> None:
    """Raises VerificationError unless the endpoint serves by this configuration, once it rests.

    Another one there is the work of somebody else, or of an earlier try that restored it: it is left alone.
    """
    found = Watch(aws, endpoint).rest(STARTUP_SECONDS) or {}
    status, running = found.get("EndpointStatus", "deleted"), found.get("EndpointConfigName")
    if status != "InService" or running != config:
        raise VerificationError(
            f"The endpoint {endpoint} is {status} with {running}, not {config}, which was deployed: another "
            "deployment or a restoration came between. Nothing was changed; clear the deployment to try "
            "again."
        )


def check_model(aws: Aws, config: str, artifact: str) -> None:
    """Raises VerificationError unless the configuration serves the model of this archive."""
    found = serving(aws, config)
    if found is None or found.artifact != artifact:
        served = found.artifact if found else "a model that is gone"
        raise VerificationError(f"The configuration {config} serves {served}, not {artifact}.")


def plausible(accuracy: float, expected: float, count: int) -> bool:
    """Whether a sample of `count` pictures can have this accuracy if the model's is `expected`.

    The standard error is the binomial one, of an expectation kept away from 0 and 1 by one picture of the
    sample.
    """
    kept = min(max(expected, 1 / count), 1 - 1 / count) if count > 1 else 0.5
    return abs(accuracy - expected) <= _STANDARD_ERRORS * math.sqrt(kept * (1 - kept) / count)


def _examine(
    *,
    pipeline: Pipeline,
    dataset: Result,
    training: Result,
    evaluation: Result,
    endpoint: Result,
    aws: Aws,
) -> dict[str, Any]:
    """Ask and compare. Raises VerificationError without changing anything."""
    check_model(aws, endpoint["config"], training["model_artifact"])
    offline = offline_predictions(aws.s3, evaluation["output"])
    checked = manifest.load(aws.s3, dataset["manifest"])
    etags = None if checked is None else {picture.path: picture.etag for picture, _ in checked}
    keys = sample(test_keys(aws.s3, dataset, etags), pipeline.verify.images)
    if not keys:
        raise VerificationError(
            f"In s3://{dataset['bucket']}/{test_prefix(dataset)} there are no test pictures that were there "
            "when the run checked the data set."
        )
    answers = [ask(aws, endpoint["name"], dataset["bucket"], key) for key in keys]
    known = {
        f"s3://{dataset['bucket']}/{test_prefix(dataset)}{name}": prediction
        for name, prediction in offline.items()
    }
    agreement = _agreement(answers, known, pipeline.verify.tolerance)
    result = {
        "endpoint": endpoint["name"],
        "config": endpoint["config"],
        "images": len(answers),
        "accuracy": round(sum(_right(answer) for answer in answers) / len(answers), 4),
        "trained_accuracy": training["metrics"].get("test:accuracy"),
        **agreement,
        "latency_ms": latency(answers),
        "predictions": answers[: pipeline.verify.shown],
    }
    _show(result)
    if not result["compared"]:
        _check_accuracy(result)
    _check_latency(result, pipeline.verify.max_latency_ms)
    return result


def _agreement(
    answers: list[dict[str, Any]], offline: Mapping[str, Offline], tolerance: float
) -> dict[str, Any]:
    """Compare the answers, adding `offline` to each. Raises VerificationError where one does not agree."""
    compared, differing = [], []
    for answer in answers:
        expected = offline.get(answer["image"])
        answer["offline"] = (
            {"class": expected.predicted, "probability": expected.probability} if expected else None
        )
        if expected is None:
            continue
        comparison = compare(answer["top"], expected, tolerance)
        compared.append(comparison)
        if not comparison.agrees:
            differing.append(
                f"{answer['image']}: {answer['predicted']} ({answer['probability']:.4f}), offline "
                f"{expected.predicted} ({expected.probability:.4f})"
            )
    if differing:
        raise VerificationError(
            f"The endpoint answers {len(differing)} of {len(compared)} test pictures otherwise than the "
            f"evaluation did (tolerance {tolerance}): {'; '.join(differing[:_SHOWN_DIFFERENCES])}. It does "
            "not serve that model, or prepares pictures otherwise."
        )
    count = len(compared)
    return {
        "compared": count,
        "agreement": round(sum(c.same_class for c in compared) / count, 4) if count else None,
        "max_probability_difference": max(c.difference for c in compared) if count else None,
    }


def _check_accuracy(result: Result) -> None:
    """What is left to compare with where there are no offline predictions."""
    trained, accuracy, count = result["trained_accuracy"], result["accuracy"], result["images"]
    if trained is not None and not plausible(accuracy, float(trained), count):
        raise VerificationError(
            f"The endpoint {result['endpoint']} gets {accuracy:.3f} of {count} test pictures right, "
            f"the trained model {trained:.3f}: it does not serve that model, or prepares pictures otherwise "
            "than training did."
        )


def _check_latency(result: Result, limit: float | None) -> None:
    median = result["latency_ms"]["median"]
    if limit is not None and median > limit:
        raise VerificationError(
            f"The endpoint {result['endpoint']} takes {median:.0f} ms for a picture, the median of "
            f"{result['images']}; verify.max_latency_ms allows {limit:.0f} ms."
        )


def _go_back(aws: Aws, endpoint: Result, package: Result, why: str) -> str:
    """Restore what was in service before, then reject the model. Returns what is in service now."""
    log.error("%s", why)
    now = _restored(aws, endpoint)
    rejected_or_logged(aws, package["arn"], why)
    return now


def _restored(aws: Aws, endpoint: Result) -> str:
    """Bring back the configuration before, if there is one. Returns what is in service now."""
    name, config, previous = endpoint["name"], endpoint["config"], endpoint.get("previous")
    if previous is None or serving(aws, previous) is None:
        return (
            f"There is no configuration before {config} to go back to, so it stays in service at {name}: "
            "delete the endpoint, or deploy a better model."
        )
    try:
        restore(aws, name, previous, instead_of=config)
    except DeploymentError as error:
        return f"Going back to {previous} failed, too: {error}"
    return f"{previous} is in service at {name} again."


def _right(answer: Result) -> bool:
    return bool(answer["predicted"] == answer["class"])


def _show(result: Result) -> None:
    for answer in result["predictions"]:
        log.info(
            "%(image)s: %(predicted)s (%(probability).2f), it is %(class)s, %(milliseconds).0f ms", answer
        )
    log.info(
        "%(images)d test pictures: accuracy %(accuracy).4f, the training job measured %(trained_accuracy)s; "
        "latency %(latency_ms)s ms",
        result,
    )
    if result["compared"]:
        log.info(
            "%(compared)d answers compared with the evaluation's: the same class in %(agreement).4f of them, "
            "probabilities differ by %(max_probability_difference).2g at most",
            result,
        )
    else:
        log.warning("The evaluation has no predictions of these pictures; only the accuracy is compared")
