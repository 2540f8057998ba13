"""The model behind TorchServe: the functions that the toolkit in AWS's image for PyTorch 2.6 calls.

The toolkit calls `model_fn` once and `input_fn`, `predict_fn` and `output_fn` for every request. An error
with a status code becomes the response. `deployment.py` is the same for Ray Serve.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from classifier.prediction import Classifier
from classifier.requests import RESPONSE_TYPE, Requested, RequestError, read_request, render, respond
from classifier.traffic import Traffic

_traffic = Traffic()


def model_fn(model_dir: str) -> Classifier:
    """Load the model of a training job and predict once, so that the first request is not slower."""
    classifier = Classifier.load(Path(model_dir))
    classifier.warm_up()
    return classifier


def input_fn(body: bytes | bytearray | str, content_type: str | None) -> Requested:
    """Open the request's images."""
    with _refusals():
        return read_request(body, content_type)


def predict_fn(requested: Requested, classifier: Classifier) -> dict[str, Any]:
    """The most probable classes of every image, and the model that predicted them."""
    with _refusals(), _traffic.request():
        return respond(requested, classifier)


def output_fn(response: dict[str, Any], accept: str) -> tuple[str, str]:
    """The response as JSON, and its type."""
    with _refusals():
        return render(response, accept), RESPONSE_TYPE


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn a refusal into the toolkit's error, whose status becomes the response's."""
    try:
        yield
    except RequestError as error:
        from sagemaker_inference.errors import GenericInferenceToolkitError  # noqa: PLC0415 - not in all images

        raise GenericInferenceToolkitError(error.status, str(error)) from error
