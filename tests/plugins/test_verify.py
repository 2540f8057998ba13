"""The check of the endpoint's answers: which pictures are sent, and which accuracy is believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from airflow.sdk import Context
from retraining.aws import Aws
from retraining.errors import VerificationError
from retraining.operators import EndpointOperator
from retraining.pipeline import Pipeline
from retraining.verify import plausible, sample, verify_endpoint

from tests.dags.airflow_home import BUCKET, ROLE_ARN
from tests.local_sagemaker.runtime_process import RuntimeProcess
from tests.plugins.conftest import INFERENCE_IMAGE, archive

KEYS = {label: [f"test/{label}/{n:03}.jpg" for n in range(50)] for label in ("a", "b", "c")}


def test_a_sample_is_even_over_the_classes_and_always_the_same() -> None:
    keys = sample(KEYS, 30)
    assert Counter(key.split("/")[1] for key in keys) == {"a": 10, "b": 10, "c": 10}
    assert keys == sample({label: names[::-1] for label, names in KEYS.items()}, 30)
    numbers = sorted(int(key[-7:-4]) for key in keys if "/a/" in key)
    assert max(after - before for before, after in pairwise(numbers)) <= 9


@pytest.mark.parametrize("limit", [None, 150, 1000])
def test_a_large_limit_takes_every_picture_once(limit: int | None) -> None:
    assert sorted(sample(KEYS, limit)) == sorted(key for keys in KEYS.values() for key in keys)


@pytest.mark.parametrize(
    ("accuracy", "expected", "count", "believed"),
    [
        (0.55, 0.60, 60, True),
        (0.30, 0.60, 60, False),
        (0.59, 0.60, 10_000, True),
        (0.55, 0.60, 10_000, False),
        (1.0, 1.0, 20, True),
        (0.5, 1.0, 20, False),
        (0.0, 1.0, 1, True),
    ],
)
def test_a_sample_is_believed_within_four_standard_errors(
    accuracy: float, expected: float, count: int, believed: bool
) -> None:
    assert plausible(accuracy, expected, count) is believed


ECHO = """
def model_fn(model_dir, context=None):
    return None

def input_fn(body, content_type):
    return body

def predict_fn(data, model):
    return data

def output_fn(prediction, accept):
    return bytes(prediction).decode()
"""


@pytest.fixture(scope="module")
def echo(runtime: RuntimeProcess) -> Iterator[dict[str, str]]:
    """An endpoint that answers what it is sent: the pictures of a data set are the model's answers."""
    key = "verify/model.tar.gz"
    runtime.client("s3").put_object(Bucket=BUCKET, Key=key, Body=archive(code__inference=ECHO))
    container = {
        "Image": INFERENCE_IMAGE,
        "ModelDataUrl": f"s3://{BUCKET}/{key}",
        "Environment": {"SAGEMAKER_PROGRAM": "inference.py"},
    }
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": "echo",
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": 1.0,
    }
    request = {
        "Model": {"ModelName": "echo", "PrimaryContainer": container, "ExecutionRoleArn": ROLE_ARN},
        "EndpointConfig": {"EndpointConfigName": "echo", "ProductionVariants": [variant]},
        "Endpoint": {"EndpointName": "echo", "EndpointConfigName": "echo"},
    }
    yield EndpointOperator(task_id="deploy", config=request).execute(Context())
    runtime.client("sagemaker").delete_endpoint(EndpointName="echo")


@pytest.fixture
def verify(pipeline: Pipeline, aws: Aws, upload: Any, echo: dict[str, str]) -> Any:
    """Runs the check on two classes of 15 pictures, where the endpoint always answers `body`."""

    def run(body: bytes, trained: float | None) -> dict[str, Any]:
        upload("verify", dict.fromkeys(NAMES, body))
        training = {"metrics": {} if trained is None else {"test:accuracy": trained}}
        return verify_endpoint(pipeline, {"bucket": BUCKET, "prefix": "verify"}, training, echo, aws)

    return run


NAMES = [f"test/{label}/{n}.jpg" for label in ("001.Red", "002.Blue") for n in range(15)]
RED = json.dumps({"predictions": [{"class": "001.Red", "label": "Red", "probability": 0.9}]}).encode()


def test_the_answers_are_counted(verify: Any) -> None:
    result = verify(RED, 0.5)
    assert (result["images"], result["accuracy"], result["trained_accuracy"]) == (30, 0.5, 0.5)
    assert result["latency_ms"].keys() == {"median", "p95", "max"}
    first = result["predictions"][0]
    assert (first["class"], first["predicted"], first["probability"]) == ("001.Red", "001.Red", 0.9)
    assert verify(RED, None)["trained_accuracy"] is None


def test_another_models_accuracy_is_refused(verify: Any) -> None:
    with pytest.raises(
        VerificationError, match=r"gets 0\.500 of 30 test pictures right, the trained model 1\.000"
    ):
        verify(json.dumps({"predictions": [{"class": "001.Red", "probability": 1}]}).encode(), 1.0)


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b'{"predictions": []}'])
def test_an_answer_that_is_none_is_refused(verify: Any, body: bytes) -> None:
    with pytest.raises(VerificationError, match=r"did not answer for s3://.*/verify/test/"):
        verify(body, 0.5)
