"""Answer pictures with classes, through AWS's PyTorch inference toolkit.

The toolkit calls `model_fn` once, then `input_fn`, `predict_fn` and `output_fn` for each request, and turns a
raised error into an answer with the error's status code.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from artifact import ModelCard, load_model
from data import centre_view, decode, normalise, open_picture, to_tensor
from errors import PictureValueError
from PIL import Image
from torch import nn

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image", "application/octet-stream")
ANSWER_TYPE = "application/json"
TOP = 5
"""Classes in an answer, or all if there are fewer."""


@dataclass(frozen=True)
class Classifier:
    """A loaded model with what its answers need."""

    model: nn.Module
    card: ModelCard
    device: torch.device


def model_fn(model_dir: str) -> Classifier:
    """Load the model that a training job left."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, card = load_model(Path(model_dir), device)
    return Classifier(model, card, device)


def input_fn(body: bytes | bytearray, content_type: str) -> Image.Image:
    """The request's picture, its header checked; 415 for other content types, 400 for what is no picture."""
    if content_type.partition(";")[0].strip().lower() not in CONTENT_TYPES:
        raise _http_error(
            415,
            f"content type '{content_type}' is not supported: send a picture as {', '.join(CONTENT_TYPES)}",
        )
    if not body:
        raise _http_error(400, "the request has no body: send a picture")
    try:
        return open_picture(io.BytesIO(body))
    except PictureValueError as error:
        raise _http_error(400, f"the request body {error}") from error


def predict_fn(picture: Image.Image, classifier: Classifier) -> dict[str, Any]:
    """The most probable classes, from the view that evaluation takes; 400 for a damaged picture."""
    card = classifier.card
    try:
        view = centre_view(decode(picture, card.image_size), card.image_size)
    except PictureValueError as error:
        raise _http_error(400, f"the request body {error}") from error
    batch = to_tensor(view).unsqueeze(0).to(classifier.device)
    with torch.inference_mode():
        probabilities = classifier.model(normalise(batch))[0].float().softmax(0).cpu()
    top = probabilities.topk(min(TOP, len(card.classes)))
    return {
        "predictions": [
            {"class": card.classes[index], "label": label(card.classes[index]), "probability": probability}
            for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ],
        "model": {
            "arch": card.arch,
            "classes": len(card.classes),
            "image_size": card.image_size,
            "weights_sha256": card.weights_sha256,
        },
    }


def output_fn(answer: dict[str, Any], accept: str) -> tuple[str, str]:
    """The answer as JSON, the only type there is; answers 406 for others."""
    accepted = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if accepted.isdisjoint({ANSWER_TYPE, "application/*", "*/*"}):
        raise _http_error(406, f"'{accept}' cannot be answered: accept {ANSWER_TYPE}")
    return json.dumps(answer), ANSWER_TYPE


def label(class_name: str) -> str:
    """A class folder's name for people: '001.German_shepherd' is 'German shepherd'."""
    number, dot, name = class_name.partition(".")
    return (name if dot and number.isdigit() else class_name).replace("_", " ")


def _http_error(status: int, message: str) -> Exception:
    """An error that the toolkit answers with this status; outside of it, a plain error with the same text."""
    try:
        from sagemaker_inference.errors import GenericInferenceToolkitError  # noqa: PLC0415
    except ImportError:
        return PictureValueError(message)
    error: Exception = GenericInferenceToolkitError(status, message)
    return error
