"""What an endpoint accepts and returns, whichever model server it has: an image in, JSON out.

body, content type  ->  read_image  ->  predict  ->  render  ->  JSON
"""

import io
import json
from typing import Any

from PIL import Image

from classifier.errors import ImageValueError
from classifier.images import open_image
from classifier.prediction import Classifier, label

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "application/octet-stream")
"""Content types of requests. The registered model package lists the same; a test compares them."""
RESPONSE_TYPE = "application/json"


class RequestError(Exception):
    """A request that is refused; the text is the response's body, `status` its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_image(body: bytes | bytearray, content_type: str) -> Image.Image:
    """Open the request's image. Raises RequestError: 415 for other content types, 400 for no image."""
    if content_type.partition(";")[0].strip().lower() not in CONTENT_TYPES:
        raise RequestError(
            415,
            f"content type '{content_type}' is not supported: send an image as {', '.join(CONTENT_TYPES)}",
        )
    if not body:
        raise RequestError(400, "the request has no body: send an image")
    try:
        return open_image(io.BytesIO(body))
    except ImageValueError as error:
        raise RequestError(400, f"the request body {error}") from error


def predict(image: Image.Image, classifier: Classifier) -> dict[str, Any]:
    """The most probable classes and the model that predicted them. Raises RequestError 400 for damage."""
    try:
        predictions = classifier.predict(image)
    except ImageValueError as error:
        raise RequestError(400, f"the request body {error}") from error
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


def render(response: dict[str, Any], accept: str) -> str:
    """The response as JSON, the only type there is. Raises RequestError 406 if the client refuses it."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if accepted.isdisjoint({RESPONSE_TYPE, "application/*", "*/*"}):
        raise RequestError(406, f"cannot respond with '{accept}': accept {RESPONSE_TYPE}")
    return json.dumps(response)


def answer(classifier: Classifier, body: bytes, content_type: str, accept: str) -> str:
    """One request from its body to the response's. Raises RequestError."""
    return render(predict(read_image(body, content_type), classifier), accept)
