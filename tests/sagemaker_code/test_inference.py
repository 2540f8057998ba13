"""A trained model responds to images through AWS's inference toolkit, and refuses everything else.

Behind Ray Serve it responds alike: tests/aws_images asks the real servers.
"""

import base64
import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import train
from classifier.artifact import ModelCard, load_model, save_model
from classifier.errors import ModelValueError
from classifier.model import build
from classifier.prediction import familiarity, label
from PIL import Image

from tests.sagemaker_code.containers import CLASSES, TINY, channels_of, draw_image


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training job."""
    base = tmp_path_factory.mktemp("trained")
    options = TINY | {"epochs": 6} | channels_of(dataset)
    options |= {
        "model-dir": base / "model",
        "output-data-dir": base / "output",
        "checkpoint-dir": base / "none",
    }
    train.main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    torch.use_deterministic_algorithms(mode=False)
    return base


@dataclass
class Request:
    """What a model server gives the toolkit's transformer as its context."""

    content_type: str
    accept: str
    model_dir: str
    model_name: str = "model"
    status: int = 200
    phrase: str = ""
    response_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def system_properties(self) -> dict[str, str]:
        return {"model_dir": self.model_dir}

    @property
    def request_processor(self) -> list["Request"]:
        return [self]

    def get_request_properties(self) -> dict[str, str]:
        return {"Content-Type": self.content_type, "Accept": self.accept}

    def set_response_status(self, code: int, phrase: str) -> None:
        self.status, self.phrase = code, phrase

    def set_response_content_type(self, _: int, value: str) -> None:
        self.response_type = value


class Endpoint:
    """AWS's transformer around the code that lies in the model's own folder."""

    def __init__(self, model_dir: Path) -> None:
        from sagemaker_inference.transformer import Transformer
        from sagemaker_pytorch_serving_container.default_pytorch_inference_handler import (
            DefaultPytorchInferenceHandler,
        )

        self._model_dir = model_dir
        self._transformer = Transformer(DefaultPytorchInferenceHandler())

    def ask(self, body: bytes, content_type: str = "image/jpeg", accept: str = "*/*") -> tuple[int, str]:
        request = Request(content_type, accept, str(self._model_dir))
        (response,) = self._transformer.transform([{"body": body}], request)
        return request.status, response


@pytest.fixture(scope="module")
def endpoint(trained: Path) -> Iterator[Endpoint]:
    """An endpoint that imports its modules from the model's code folder, not from the source tree."""
    pytest.importorskip("sagemaker_inference", reason="training images have no inference toolkit")

    def ours() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in ("classifier", "inference")]

    before = {name: sys.modules.pop(name) for name in ours()}
    sys.path.insert(0, str(trained / "model/code"))
    importlib.invalidate_caches()
    endpoint = Endpoint(trained / "model")
    endpoint.ask(b"")
    for name in ours():
        assert (trained / "model/code") in Path(str(sys.modules[name].__file__)).parents
    assert "classifier.prediction" in ours()
    yield endpoint
    sys.path.remove(str(trained / "model/code"))
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def as_bytes(image: Image.Image, file_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


def image_bytes(file_format: str = "JPEG") -> bytes:
    return as_bytes(draw_image("001.Red_disc", np.random.default_rng(1)), file_format)


class TestResponses:
    @pytest.mark.parametrize(
        ("content_type", "file_format"),
        [
            ("image/jpeg", "JPEG"),
            ("image/png", "PNG"),
            ("application/x-image", "PNG"),
            ("application/octet-stream", "JPEG"),
            ("image/JPEG; charset=binary", "JPEG"),
            ("image/webp", "PNG"),
            ("image/anything", "GIF"),
            ("application/x-www-form-urlencoded", "JPEG"),
            ("", "PNG"),
        ],
    )
    def test_images_of_every_content_type(
        self, endpoint: Endpoint, content_type: str, file_format: str
    ) -> None:
        status, body = endpoint.ask(image_bytes(file_format), content_type)
        response = json.loads(body)
        assert status == 200
        predictions = response["predictions"]
        assert {prediction["class"] for prediction in predictions} == set(CLASSES)
        probabilities = [prediction["probability"] for prediction in predictions]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert response["model"]["arch"] == "resnet18"
        assert response["model"]["classes"] == 3

    def test_labels_are_for_people(self, endpoint: Endpoint) -> None:
        response = json.loads(endpoint.ask(image_bytes())[1])
        assert {prediction["label"] for prediction in response["predictions"]} == {
            "Red disc",
            "Green bar",
            "Blue box",
        }

    @pytest.mark.parametrize(
        ("class_name", "expected"),
        [
            ("002.German_shepherd", "German shepherd"),
            ("tabby", "tabby"),
            ("v1.final", "v1.final"),
            ("n02085620-Chihuahua", "n02085620-Chihuahua"),
        ],
    )
    def test_label(self, class_name: str, expected: str) -> None:
        assert label(class_name) == expected

    @pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "I;16"])
    def test_every_colour_mode(self, endpoint: Endpoint, mode: str) -> None:
        file_format = "JPEG" if mode == "CMYK" else "PNG"
        image = Image.new(mode, (50, 70), (1, 2, 3, 4) if mode == "RGBA" else 0)
        assert endpoint.ask(as_bytes(image, file_format), "application/x-image")[0] == 200

    def test_json_is_the_same_image(self, endpoint: Endpoint) -> None:
        text = base64.b64encode(image_bytes()).decode()
        _, alone = endpoint.ask(image_bytes())
        assert endpoint.ask(json.dumps({"image": text}).encode(), "application/json") == (200, alone)

    def test_a_batch_has_a_response_for_every_image(self, endpoint: Endpoint) -> None:
        texts = [base64.b64encode(body).decode() for body in (image_bytes(), b"no image", image_bytes("PNG"))]
        status, body = endpoint.ask(json.dumps({"images": texts}).encode(), "application/json")
        response = json.loads(body)
        first, second, third = response["responses"]
        assert status == 200
        assert first["predictions"][0]["class"] == third["predictions"][0]["class"]
        assert "image 1 is not an image" in second["error"]
        assert response["model"]["classes"] == 3

    def test_pixels_of_a_batch_are_added_up(self, endpoint: Endpoint) -> None:
        large = base64.b64encode(as_bytes(Image.new("L", (4000, 4000)), "PNG")).decode()
        body = json.dumps({"images": [large, large]}).encode()
        first, second = json.loads(endpoint.ask(body, "application/json")[1])["responses"]
        assert "predictions" in first
        assert "may have 25,000,000 in all" in second["error"]

    def test_a_response_says_how_familiar_an_image_is(self, endpoint: Endpoint, dataset: Path) -> None:
        known = [
            json.loads(endpoint.ask(file.read_bytes())[1])["familiarity"]
            for file in sorted((dataset / "test").rglob("*.jpg"))
        ]
        assert 0.3 < sum(known) / len(known) < 0.8
        response = json.loads(endpoint.ask(as_bytes(Image.new("RGB", (60, 60), "gray")))[1])
        assert 0 <= response["entropy"] <= 1
        assert 0 <= response["familiarity"] <= 1

    @pytest.mark.parametrize(("energy", "expected"), [(-1.0, 0.0), (1.0, 0.25), (2.5, 0.5), (9.0, 1.0)])
    def test_familiarity_is_a_share_of_the_test(self, energy: float, expected: float) -> None:
        assert familiarity(energy, (1.0, 2.0, 3.0, 4.0)) == expected
        assert familiarity(energy, ()) is None

    def test_the_endpoint_sees_what_evaluation_saw(
        self, endpoint: Endpoint, trained: Path, dataset: Path
    ) -> None:
        classes = sorted(CLASSES)
        confusion = np.zeros((3, 3), int)
        for file in sorted((dataset / "test").rglob("*.jpg")):
            response = json.loads(endpoint.ask(file.read_bytes())[1])
            predicted = classes.index(response["predictions"][0]["class"])
            confusion[classes.index(file.parent.name), predicted] += 1
        metrics = json.loads((trained / "output/metrics.json").read_text())
        assert confusion.tolist() == metrics["final"]["confusion"]

    @pytest.mark.parametrize("accept", ["application/json", "*/*", "text/html, application/json;q=0.9"])
    def test_accepted_responses(self, endpoint: Endpoint, accept: str) -> None:
        assert endpoint.ask(image_bytes(), accept=accept)[0] == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "content_type", "status", "reason"),
        [
            (b"no image", "image/jpeg", 400, "the request body is not an image"),
            (b"", "image/jpeg", 400, "no body"),
            (image_bytes()[:-300], "image/jpeg", 400, "damaged or cut off"),
            (as_bytes(Image.new("1", (9000, 9000)), "PNG"), "image/png", 400, "at most 64,000,000"),
            (as_bytes(Image.new("L", (5001, 5001)), "PNG"), "image/png", 400, "send it smaller, or as JPEG"),
            (b"1,2,3", "text/csv", 415, "content type 'text/csv' is not supported"),
            (b"{}", "application/json", 400, 'send {"image": "<base64>"}'),
            (b'{"images": []}', "application/json", 400, 'send {"image": "<base64>"}'),
            (b'{"image": "?"}', "application/json", 400, "the image is no base64 text"),
            (b"[" * 100_000, "application/json", 400, "is not an image"),
            (as_bytes(Image.new("RGB", (1, 1)), "PNG"), "image/png", 400, "has 1 x 1 pixels; 8 are needed"),
            (as_bytes(Image.new("RGB", (4000, 2)), "PNG"), "image/png", 400, "has 4000 x 2 pixels"),
            (as_bytes(Image.new("RGBA", (50, 50)), "PNG"), "image/png", 400, "is transparent everywhere"),
        ],
    )
    def test_a_refusal_has_a_status_and_a_reason_and_serving_goes_on(
        self, endpoint: Endpoint, body: bytes, content_type: str, status: int, reason: str
    ) -> None:
        refused, text = endpoint.ask(body, content_type)
        assert refused == status
        assert reason in text
        assert endpoint.ask(image_bytes())[0] == 200

    def test_a_large_photograph_is_scaled_while_it_is_decoded(self, endpoint: Endpoint) -> None:
        photograph = as_bytes(Image.new("RGB", (8000, 6000), "brown"), "JPEG")
        assert endpoint.ask(photograph, "image/jpeg")[0] == 200

    def test_unacceptable_response_type(self, endpoint: Endpoint) -> None:
        status, text = endpoint.ask(image_bytes(), accept="text/csv")
        assert status == 406
        assert "accept application/json" in text


class TestArtifact:
    CARD = ModelCard("squeezenet1_1", ("a", "b", "c"), 32)

    def test_a_saved_model_predicts_the_same(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = build("squeezenet1_1", 3, 32).eval()
        save_model(model.state_dict(), self.CARD, tmp_path)
        loaded, card = load_model(tmp_path, torch.device("cpu"))
        batch = torch.randn(2, 3, 32, 32)
        assert torch.equal(loaded(batch), model(batch))
        assert card.classes == self.CARD.classes
        assert len(card.weights_sha256) == 64

    def test_serving_needs_only_what_lies_in_the_folder(self, tmp_path: Path) -> None:
        """In a process that sees neither the source tree nor packages the inference container lacks."""
        save_model(build("squeezenet1_1", 3, 32).state_dict(), self.CARD, tmp_path)
        program = (
            "import sys; sys.modules.update(dict.fromkeys(['safetensors', 'smdebug', 'sagemaker_training']));"
            "import inference; inference.model_fn(sys.argv[1]);"
            "training = {'classifier.training', 'classifier.data', 'debugger', 'matplotlib'};"
            "sys.exit(', '.join(training & sys.modules.keys()) or 0)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=tmp_path / "code",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelValueError, match=r"model\.json cannot be read"):
            load_model(tmp_path, torch.device("cpu"))
