"""The check of a deployed model: does the endpoint serve it, and does it predict what the evaluation saw?

If not, the previous configuration is restored.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from retraining.aws.clients import Aws
from retraining.aws.s3 import split_uri
from retraining.config.pipeline import Pipeline
from retraining.deployment.endpoint import at_rest, restore, serving
from retraining.deployment.predictions import (
    compare,
    kept_images,
    latency,
    offline_predictions,
    predict,
)
from retraining.errors import DeploymentError, UnverifiedError, VerificationError
from retraining.planning.deployment import STARTUP_SECONDS
from retraining.registry.registry import mark_live, reject_or_log
from retraining.runs.results import (
    Agreement,
    EndpointResult,
    RunResults,
    VerificationResult,
    VerifiedPrediction,
)

log = logging.getLogger(__name__)

_SHOWN_DIFFERENCES = 3


def verify_endpoint(pipeline: Pipeline, results: RunResults, aws: Aws) -> VerificationResult:
    """Send the test images that the evaluation kept, and compare the predictions with the evaluation's.

    A dataset that has changed meanwhile makes no difference. A model that passes becomes live in the
    registry. One that fails is rejected there, and the endpoint's previous configuration is restored. The
    result keeps as many predictions as `pipeline.verify.shown`, one of each class first.
    Raises VerificationError, which says what is wrong and what is in service now. What says nothing about
    the model raises another error and changes nothing: NoAnswerError, ClientError, or UnverifiedError where
    there is nothing to compare with.
    """
    endpoint, package = results["endpoint"], results["package"]["arn"]
    check_in_service(aws, endpoint["name"], endpoint["config"])
    try:
        result = _examine(pipeline, results, aws)
    except VerificationError as error:
        log.warning("The model fails the check of its endpoint: %s", error)
        in_service = _restored(aws, endpoint)
        reject_or_log(aws, package, str(error))
        raise VerificationError(f"{error} {in_service}") from error
    mark_live(aws, package, datetime.now(UTC), endpoint["config"])
    return result


def check_in_service(aws: Aws, endpoint: str, config: str) -> None:
    """Raises VerificationError unless the endpoint serves with this configuration once it is at rest.

    Another configuration was put there by another deployment, or by an earlier attempt that restored it: it
    is left alone.
    """
    found = at_rest(aws, endpoint, STARTUP_SECONDS)
    status = found["EndpointStatus"] if found else "deleted"
    running = found["EndpointConfigName"] if found else None
    if status != "InService" or running != config:
        raise VerificationError(
            f"The endpoint {endpoint} is {status} with {running}, not {config}, which was deployed: another "
            "deployment or a restoration has changed it. Nothing was changed now; clear the task `deploy` to "
            "deploy again."
        )


def check_model(aws: Aws, config: str, artifact: str) -> None:
    """Raises VerificationError unless the configuration serves the model of this archive."""
    found = serving(aws, config)
    if found is None or found.artifact != artifact:
        served = found.artifact if found else "a model that was deleted"
        raise VerificationError(f"The configuration {config} serves {served}, not {artifact}.")


def _examine(pipeline: Pipeline, results: RunResults, aws: Aws) -> VerificationResult:
    """Get predictions and compare them. Raises VerificationError without changing anything."""
    training, endpoint = results["training"], results["endpoint"]
    check_model(aws, endpoint["config"], training["model_artifact"])
    output = results["evaluation"]["output"]
    images = kept_images(aws.s3, output)
    offline = offline_predictions(aws.s3, output)
    if not images or images.keys() - offline.keys():
        raise UnverifiedError(
            f"{output} lacks test images or the predictions for them, so the model could not be checked, and "
            "it stays in service. Clear the task `evaluate` to evaluate the model again."
        )
    bucket, _ = split_uri(output)
    predictions: list[VerifiedPrediction] = []
    for name, key in images.items():
        prediction = predict(aws, endpoint["name"], bucket, key, name.partition("/")[0])
        predictions.append({**prediction, "offline": offline[name]})
    result: VerificationResult = {
        "endpoint": endpoint["name"],
        "config": endpoint["config"],
        "images": len(predictions),
        "accuracy": round(sum(p["predicted"] == p["class"] for p in predictions) / len(predictions), 4),
        "trained_accuracy": training["metrics"].get("test:accuracy"),
        **_agreement(predictions, pipeline.verify.tolerance),
        "latency_ms": latency(predictions),
        "predictions": predictions[: pipeline.verify.shown],
    }
    _show(result)
    _check_latency(result, pipeline.verify.max_latency_ms)
    return result


def _agreement(predictions: list[VerifiedPrediction], tolerance: float) -> Agreement:
    """Compare the predictions with the evaluation's. Raises VerificationError if any does not agree."""
    compared, differing = [], []
    for prediction in predictions:
        expected = prediction["offline"]
        comparison = compare(prediction["top"], expected, tolerance)
        compared.append(comparison)
        if not comparison.agrees:
            differing.append(
                f"{prediction['image']}: {prediction['predicted']} ({prediction['probability']:.4f}), "
                f"offline {expected['class']} ({expected['probability']:.4f})"
            )
    if differing:
        raise VerificationError(
            f"The endpoint's predictions for {len(differing)} of {len(compared)} test images differ from the "
            f"evaluation's (tolerance {tolerance}): {'; '.join(differing[:_SHOWN_DIFFERENCES])}. It serves "
            "another model, or prepares images differently."
        )
    count = len(compared)
    return {
        "compared": count,
        "agreement": round(sum(c.same_class for c in compared) / count, 4),
        "max_probability_difference": max(c.difference for c in compared),
    }


def _check_latency(result: VerificationResult, limit: float | None) -> None:
    median = result["latency_ms"]["median"]
    if limit is not None and median > limit:
        raise VerificationError(
            f"The endpoint {result['endpoint']} takes {median:.0f} ms for an image, the median of "
            f"{result['images']}; verify.max_latency_ms allows {limit:.0f} ms."
        )


def _restored(aws: Aws, endpoint: EndpointResult) -> str:
    """Restore the previous configuration, if there is one. Returns what is in service now, in a sentence."""
    name, config, previous = endpoint["name"], endpoint["config"], endpoint["previous"]
    if previous is None or serving(aws, previous) is None:
        return (
            f"There is no previous configuration to restore, so {config} stays in service at {name}: delete "
            "the endpoint, or deploy a better model."
        )
    try:
        restore(aws, name, previous, instead_of=config)
    except DeploymentError as error:
        return f"Restoring {previous} failed, too: {error}"
    return f"{previous} is in service at {name} again."


def _show(result: VerificationResult) -> None:
    for prediction in result["predictions"]:
        log.info(
            "%(image)s: predicted %(predicted)s (%(probability).2f), true class %(class)s, "
            "%(milliseconds).0f ms",
            prediction,
        )
    log.info(
        "%(images)d test images: accuracy %(accuracy).4f, in the training job %(trained_accuracy)s; "
        "latency %(latency_ms)s ms",
        result,
    )
    log.info(
        "%(compared)d predictions compared with the evaluation's: the same class in %(agreement).4f of them, "
        "probabilities differ by %(max_probability_difference).2g at most",
        result,
    )
