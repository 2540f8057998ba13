"""Entry point of an endpoint: the functions that AWS's PyTorch inference toolkit calls.

The toolkit calls `model_fn` once and `input_fn`, `predict_fn` and `output_fn` for every request. An error
with a status code becomes the response.
"""

import io
import json
from pathlib import Path
from typing import Any

from classifier.errors import ImageValueError
from classifier.images import open_image
from classifier.prediction import Classifier, label
from PIL import Image

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "application/octet-stream")
"""Content types of requests. The registered model package lists the same; a test compares them."""
RESPONSE_TYPE = "application/json"


def model_fn(model_dir: str) -> Classifier:
    """Load the model of a training job."""
    return Classifier.load(Path(model_dir))


def input_fn(body: bytes | bytearray, content_type: str) -> Image.Image:
    """Open the request's image; status 415 for other content types, 400 for a body that is no image."""
    if content_type.partition(";")[0].strip().lower() not in CONTENT_TYPES:
        raise _http_error(
            415,
            f"content type '{content_type}' is not supported: send an image as {', '.join(CONTENT_TYPES)}",
        )
    if not body:
        raise _http_error(400, "the request has no body: send an image")
    try:
        return open_image(io.BytesIO(body))
    except ImageValueError as error:
        raise _http_error(400, f"the request body {error}") from error


def predict_fn(image: Image.Image, classifier: Classifier) -> dict[str, Any]:
    """The most probable classes and the model that predicted them; status 400 for a damaged image."""
    try:
        predictions = classifier.predict(image)
    except ImageValueError as error:
        raise _http_error(400, f"the request body {error}") from error
    card = classifier.card
    return {
        "predictions": [
            {"class": name, "label": label(name), "probability": probability}
            for name, probability in predictions
        ],
        "model": {
            "arch": card.arch,
            "classes": len(card.classes),
            "image_size": card.image_size,
            "weights_sha256": card.weights_sha256,
        },
    }


def output_fn(response: dict[str, Any], accept: str) -> tuple[str, str]:
    """The response as JSON, the only type there is; status 406 if the client does not accept it."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if accepted.isdisjoint({RESPONSE_TYPE, "application/*", "*/*"}):
        raise _http_error(406, f"cannot respond with '{accept}': accept {RESPONSE_TYPE}")
    return json.dumps(response), RESPONSE_TYPE


def _http_error(status: int, message: str) -> Exception:
    """An error that the toolkit responds to with this status; a plain error without the toolkit."""
    try:
        from sagemaker_inference.errors import GenericInferenceToolkitError  # noqa: PLC0415
    except ImportError:
        return ImageValueError(message)
    error: Exception = GenericInferenceToolkitError(status, message)
    return error
