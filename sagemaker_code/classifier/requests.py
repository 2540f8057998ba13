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
SCALED_FORMATS = ("JPEG", "MPO")
"""Decoded at a part of their size, so that the largest image accepted takes a fraction of a second."""
MAX_PIXELS_IN_FULL = 25_000_000
"""Of other formats in requests: a 24-megapixel photograph, whose decoding takes about a second on one core.

A PNG of one colour has a few hundred bytes a megapixel, and its decoding would hold a model server for as
long as anybody likes. Training and evaluation read what the dataset's check let pass.
"""
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
        image = open_image(io.BytesIO(body))
    except ImageValueError as error:
        raise RequestError(400, f"the request body {error}") from error
    width, height = image.size
    if image.format not in SCALED_FORMATS and width * height > MAX_PIXELS_IN_FULL:
        raise RequestError(
            400,
            f"the request body has {width} x {height} pixels; a {image.format} image may have "
            f"{MAX_PIXELS_IN_FULL:,}: send it smaller, or as JPEG",
        )
    return image


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
