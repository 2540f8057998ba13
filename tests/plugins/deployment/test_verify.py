"""The check of the endpoint's predictions, against the evaluation or the accuracy, and the restoration."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.deployment.predictions import compare, predict
from retraining.deployment.verify import verify_endpoint
from retraining.errors import NoAnswerError, UnverifiedError, VerificationError
from retraining.registry.registry import LIVE_CONFIG, reject
from retraining.runs.results import ClassProbability, EndpointResult, VerificationResult

from tests.dags.airflow_home import BUCKET
from tests.local_sagemaker.runtime_process import RuntimeProcess
from tests.plugins.models import deploy, deployment_request, put_model, register_model
from tests.plugins.traffic import traffic


def best(**probabilities: float) -> list[ClassProbability]:
    """An endpoint's best classes, best first."""
    return [{"class": name, "probability": value} for name, value in probabilities.items()]


@pytest.mark.parametrize(
    ("top", "same_class", "agrees"),
    [
        (best(a=0.9, b=0.05), True, True),
        (best(a=0.9005, b=0.05), True, True),
        (best(a=0.88, b=0.05), True, False),
        (best(b=0.9, a=0.05), False, False),
        (best(b=0.9), False, False),
    ],
)
def test_predictions_agree_within_the_tolerance(
    top: list[ClassProbability], same_class: bool, agrees: bool
) -> None:
    comparison = compare(top, {"class": "a", "probability": 0.9}, 0.001)
    assert (comparison.same_class, comparison.agrees) == (same_class, agrees)


@pytest.mark.parametrize(
    ("top", "agrees"),
    [
        (best(b=0.4502, a=0.4498), True),
        (best(b=0.46, a=0.45), False),
        (best(b=0.2, c=0.2, d=0.2, e=0.2), False),
    ],
)
def test_nearly_equal_classes_may_swap_places(top: list[ClassProbability], agrees: bool) -> None:
    assert compare(top, {"class": "a", "probability": 0.45}, 0.001).agrees is agrees


def test_a_class_below_the_best_five_can_be_as_good_as_they_are() -> None:
    even = best(**dict.fromkeys("bcdef", 0.0083))
    assert compare(even, {"class": "a", "probability": 0.0083}, 0.001).agrees


RED, BLUE = "001.Red", "002.Blue"
NAMES = [f"{label}/{n}.jpg" for label in (RED, BLUE) for n in range(15)]


def says(label: str, probability: float = 0.9) -> bytes:
    return json.dumps({"predictions": [{"class": label, "probability": probability}]}).encode()


def offline(label: str, probability: float = 0.9, names: list[str] = NAMES) -> bytes:
    """The evaluation's predictions.jsonl: the same prediction for each image."""
    same = {"class": label, "probability": probability}
    rows = [{"key": n, "true": n.split("/")[0], "challenger": same, "champion": None} for n in names]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="module")
def deployed(runtime: RuntimeProcess) -> Iterator[Callable[[int], EndpointResult]]:
    """Deploys versions of a model that echoes: the images of a dataset are its responses."""
    name = f"verify-{uuid.uuid4().hex[:8]}"

    def put(version: int) -> EndpointResult:
        artifact = put_model(runtime.client("s3"), f"verify/{name}/{version}/model.tar.gz")
        return deploy(deployment_request(f"{name}-{version}", name, artifact))

    put(1)
    yield put
    runtime.client("sagemaker").delete_endpoint(EndpointName=name)


def artifact_of(endpoint: EndpointResult) -> str:
    """URI of the archive that the endpoint serves."""
    version = endpoint["config"].removeprefix(f"{endpoint['name']}-")
    return f"s3://{BUCKET}/verify/{endpoint['name']}/{version}/model.tar.gz"


@pytest.fixture
def verify(pipeline: Pipeline, aws: Aws, upload: Any) -> Any:
    """Runs the check on two classes of 15 images, for which the endpoint always responds with `body`.
    `artifact` is the trained model's.
    """

    def run(
        endpoint: EndpointResult,
        body: bytes,
        predictions: bytes | None = None,
        trained: float | None = None,
        *,
        names: list[str] = NAMES,
        package: str | None = None,
        artifact: str | None = None,
        **limits: Any,
    ) -> VerificationResult:
        folder = f"verify/run-{uuid.uuid4().hex[:8]}"
        upload(f"{folder}/images", dict.fromkeys(names, body))
        if predictions is not None:
            upload(folder, {"predictions.jsonl": predictions})
        results: Any = {
            "training": {
                "metrics": {} if trained is None else {"test:accuracy": trained},
                "model_artifact": artifact or artifact_of(endpoint),
            },
            "evaluation": {"output": f"s3://{BUCKET}/{folder}"},
            "endpoint": endpoint,
            "package": {"arn": package or register_model(aws, endpoint["name"], artifact_of(endpoint))},
        }
        limited = pipeline.model_copy(update={"verify": pipeline.verify.model_copy(update=limits)})
        return verify_endpoint(limited, results, aws)

    return run


@pytest.fixture(scope="module")
def first(deployed: Callable[[int], EndpointResult]) -> EndpointResult:
    return {**deployed(1), "previous": None}


def test_the_predictions_are_compared_with_the_evaluation(verify: Any, first: EndpointResult) -> None:
    result = verify(first, says(RED), offline(RED, 0.9004), 0.99)
    assert (result["images"], result["compared"], result["agreement"]) == (30, 30, 1.0)
    assert result["max_probability_difference"] == pytest.approx(0.0004)
    assert (result["endpoint"], result["config"]) == (first["name"], first["config"])
    shown = result["predictions"][0]
    assert (shown["class"], shown["predicted"], shown["offline"]["class"]) == (RED, RED, RED)
    assert result["latency_ms"].keys() == {"median", "p95", "max"}


def test_a_response_that_does_not_come_says_nothing_about_the_model(
    aws: Aws, upload: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload("verify/hanging", {"a/1.jpg": b"an image"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        runtime = boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(read_timeout=0.5, retries={"total_max_attempts": 1}),
        )
        monkeypatch.setitem(vars(aws), "runtime", runtime)
        with pytest.raises(NoAnswerError, match=r"gave no prediction for .*1\.jpg: Read timeout"):
            predict(aws, "hanging", BUCKET, "verify/hanging/a/1.jpg", "a")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"body": says(RED), "predictions": offline(BLUE)}, r"predictions for 30 of 30 test images differ"),
        (
            {"body": says(RED), "predictions": offline(RED), "max_latency_ms": 0.01},
            r"verify\.max_latency_ms allows 0 ms",
        ),
        ({"body": b"no JSON", "predictions": offline(RED)}, r"gave no prediction for s3://.*/verify/run"),
        ({"body": b"{}", "predictions": offline(RED)}, "gave no prediction"),
        ({"body": b'{"predictions": []}', "predictions": offline(RED)}, "gave no prediction"),
    ],
)
def test_an_error_says_what_is_wrong_and_a_first_model_stays(
    verify: Any, first: EndpointResult, arguments: dict[str, Any], reason: str, aws: Aws
) -> None:
    with pytest.raises(VerificationError, match=reason) as error:
        verify(first, **arguments)
    assert f"no previous configuration to restore, so {first['config']} stays in service" in str(error.value)
    described = aws.sagemaker.describe_endpoint(EndpointName=first["name"])
    assert described["EndpointConfigName"] == first["config"]


def test_the_previous_model_is_restored_without_a_gap(
    verify: Any, deployed: Callable[[int], EndpointResult], aws: Aws, runtime: RuntimeProcess
) -> None:
    second = deployed(2)
    name, before = second["name"], second["previous"]
    package = register_model(aws, name, artifact_of(second))
    reject(aws, package, "An earlier deployment was rolled back.")
    assert verify(second, says(RED), predictions=offline(RED), package=package)["agreement"] == 1.0
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["CustomerMetadataProperties"][LIVE_CONFIG] == second["config"]
    assert described["ModelApprovalStatus"] == "Approved"

    with (
        traffic(runtime, name) as seen,
        pytest.raises(VerificationError, match=f"differ.*{before} is in service at {name} again"),
    ):
        verify(second, says(RED), predictions=offline(BLUE), package=package)
    assert (seen.succeeded > 0, seen.failed) == (True, 0)
    assert aws.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] == before
    described = aws.sagemaker.describe_model_package(ModelPackageName=package)
    assert described["ModelApprovalStatus"] == "Rejected"
    assert "differ from the evaluation's" in described["ApprovalDescription"]
    assert LIVE_CONFIG not in described.get("CustomerMetadataProperties", {})

    with pytest.raises(VerificationError, match=f"InService with {before}, not {second['config']}"):
        verify(second, says(RED), predictions=offline(RED), package=package)
    assert aws.sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"] == before


def test_a_registry_that_refuses_hides_nothing(
    verify: Any, deployed: Callable[[int], EndpointResult], aws: Aws, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = deployed(4)
    package = "arn:aws:sagemaker:us-east-1:123456789012:model-package/no-such-group/1"
    with pytest.raises(VerificationError, match=f"differ.*{endpoint['previous']} is in service"):
        verify(endpoint, says(RED), predictions=offline(BLUE), package=package)
    assert f"{package} could not be rejected in the registry" in caplog.text


def test_another_model_under_the_configuration_is_found(
    verify: Any, deployed: Callable[[int], EndpointResult], aws: Aws
) -> None:
    found = deployed(3)
    package = register_model(aws, found["name"], artifact_of(found))
    other = f"s3://{BUCKET}/another/model.tar.gz"
    with pytest.raises(VerificationError, match=r"serves s3://.*, not s3://.*/another/model\.tar\.gz"):
        verify(found, says(RED), predictions=offline(RED), package=package, artifact=other)


@pytest.mark.parametrize(
    "arguments",
    [{"names": []}, {"predictions": None}, {"predictions": offline(RED, names=NAMES[1:])}],
    ids=["no images", "no predictions", "not all predictions"],
)
def test_what_cannot_be_verified_is_left_as_it_is(
    verify: Any, deployed: Callable[[int], EndpointResult], arguments: dict[str, Any], aws: Aws
) -> None:
    endpoint = deployed(5)
    package = register_model(aws, endpoint["name"], artifact_of(endpoint))
    with pytest.raises(UnverifiedError, match="could not be checked, and it stays in service"):
        verify(endpoint, says(RED), **{"predictions": offline(RED), **arguments}, package=package)
    running = aws.sagemaker.describe_endpoint(EndpointName=endpoint["name"])["EndpointConfigName"]
    status = aws.sagemaker.describe_model_package(ModelPackageName=package)["ModelApprovalStatus"]
    assert (running, status) == (endpoint["config"], "Approved")
