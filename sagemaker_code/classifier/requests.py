"""What an endpoint accepts and returns, whichever model server it has: images in, JSON out.

body, content type  ->  read_request  ->  respond  ->  render  ->  JSON

One image is the body itself, or `{"image": "<base64>"}`. Several are `{"images": ["<base64>", ...]}`: the
response then has a list `responses`, in their order, and an image that cannot be used leaves the others
theirs.
"""

import base64
import binascii
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from classifier.prediction import Classifier, Prediction, label
from classifier.reader import (
    MAX_PIXELS,
    MIN_SIDE,
    SCALED_FORMATS,
    ImageValueError,
    open_image,
    shows_nothing,
)

CONTENT_TYPES = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/webp",
    "application/x-image",
    "application/octet-stream",
    "application/json",
)
"""What the registered model package names; a test compares them."""
BY_THE_BYTES = {
    "",
    "application/x-image",
    "application/octet-stream",
    "binary/octet-stream",  # of S3
    "application/x-www-form-urlencoded",  # of curl, unless it is told otherwise
}
"""Content types that say nothing about a body, as `image/*` does not: its own bytes decide."""
MAX_PIXELS_IN_FULL = 25_000_000
"""Of other formats in a request: a 24-megapixel photograph, whose decoding takes about a second on one core.

A PNG of one colour has a few hundred bytes a megapixel, and its decoding would hold a model server for as
long as anybody likes. Training and evaluation read what the dataset's check let pass.
"""
MAX_IMAGES = 64
"""In one request."""
RESPONSE_TYPE = "application/json"


class RequestError(Exception):
    """A request that is refused; the text is the response's body, `status` its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Requested:
    """The images of a request, or why one cannot be used. `several` asks for a list of responses."""

    images: Sequence[Image.Image | RequestError]
    several: bool = False


def read_request(body: bytes | bytearray | str, content_type: str | None) -> Requested:
    """Open the request's images. Raises RequestError: 415 for other content types, 400 for no image."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not (kind in BY_THE_BYTES or kind.startswith("image/") or kind == "application/json"):
        accepted = ", ".join(CONTENT_TYPES)
        raise RequestError(
            415, f"content type '{content_type}' is not supported: send an image as {accepted}"
        )
    if isinstance(body, str):  # of AWS's toolkit, for JSON
        body = body.encode()
    if not body:
        raise RequestError(400, "the request has no body: send an image")
    if kind == "application/json" and (requested := _read_json(body)) is not None:
        return requested
    return Requested([_open(body, "the request body", 0)])


def respond(requested: Requested, classifier: Classifier) -> dict[str, Any]:
    """The most probable classes of every image, and the model. Raises RequestError 400 for no image."""
    results = [_tensor(image, classifier) for image in requested.images]
    tensors = [one for one in results if not isinstance(one, RequestError)]
    if not tensors:
        raise next(one for one in results if isinstance(one, RequestError))
    predictions = iter(classifier.predict_tensors(torch.stack(tensors)))
    responses = [
        {"error": str(one)} if isinstance(one, RequestError) else _response(next(predictions))
        for one in results
    ]
    card = classifier.card
    model = {
        "arch": card.arch,
        "classes": len(card.classes),
        "image_size": card.image_size,
        "weights_sha256": card.weights_sha256,
    }
    return {**({"responses": responses} if requested.several else responses[0]), "model": model}


def render(response: dict[str, Any], accept: str) -> str:
    """The response as JSON, the only type there is. Raises RequestError 406 if the client refuses it."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if accepted.isdisjoint({RESPONSE_TYPE, "application/*", "*/*", ""}):
        raise RequestError(406, f"cannot respond with '{accept}': accept {RESPONSE_TYPE}")
    return json.dumps(response)


def answer(classifier: Classifier, body: bytes, content_type: str, accept: str) -> str:
    """One request from its body to the response's. Raises RequestError."""
    return render(respond(read_request(body, content_type), classifier), accept)


def _read_json(body: bytes | bytearray) -> Requested | None:
    """The images of a JSON document; None for a body that is none, which may be an image all the same."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match document:
        case {"image": str(image)}:
            return Requested([_from_base64(image, "the image", 0)])
        case {"images": [_, *_] as images} if len(images) <= MAX_IMAGES:
            opened: list[Image.Image | RequestError] = []
            pixels = 0
            for number, image in enumerate(images):
                try:
                    one = _from_base64(image, f"image {number}", pixels)
                except RequestError as error:
                    opened.append(error)
                else:
                    opened.append(one)
                    pixels += _pixels(one)
            return Requested(opened, several=True)
    raise RequestError(
        400,
        'the request body is JSON without images: send {"image": "<base64>"}, or {"images": [...]} with 1 to '
        f"{MAX_IMAGES} of them",
    )


def _from_base64(text: object, name: str, pixels_before: int) -> Image.Image:
    try:
        body = base64.b64decode(text if isinstance(text, str) else "!", validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, f"{name} is no base64 text ({error})") from error
    return _open(body, name, pixels_before)


def _open(body: bytes | bytearray, name: str, pixels_before: int) -> Image.Image:
    """Raises RequestError 400 for no image, or for more pixels in a request than a server should decode."""
    try:
        image = open_image(io.BytesIO(body))
    except ImageValueError as error:
        raise RequestError(400, f"{name} {error}") from error
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise RequestError(400, f"{name} {shows_nothing(image)}")
    if pixels_before + _pixels(image) > MAX_PIXELS_IN_FULL:
        raise RequestError(
            400,
            f"{name} has {width} x {height} pixels; the images of a request may have "
            f"{MAX_PIXELS_IN_FULL:,} in all: send it smaller, or as JPEG, whose pixels count less",
        )
    return image


def _pixels(image: Image.Image) -> int:
    """The pixels to decode; of a scaled format fewer count, so that the largest image alone is accepted."""
    pixels = image.width * image.height
    return pixels * MAX_PIXELS_IN_FULL // MAX_PIXELS if image.format in SCALED_FORMATS else pixels


def _tensor(image: Image.Image | RequestError, classifier: Classifier) -> torch.Tensor | RequestError:
    """The model's input, or why there is none."""
    if isinstance(image, RequestError):
        return image
    try:
        tensor = classifier.read(image)
    except ImageValueError as error:
        return RequestError(400, f"the request's image {error}")
    reason = shows_nothing(image)
    return tensor if reason is None else RequestError(400, f"the request's image {reason}")


def _response(prediction: Prediction) -> dict[str, Any]:
    return {
        "predictions": [
            {"class": name, "label": label(name), "probability": probability}
            for name, probability in prediction.classes
        ],
        "entropy": round(prediction.entropy, 4),
        "familiarity": prediction.familiarity,
    }
