"""From two trained models to the registry: champion, processing job, gate and version."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import Context
from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, read, read_json, split_uri, write
from retraining.config.params import RunSettings, form
from retraining.config.pipeline import Pipeline
from retraining.errors import CandidateError, JobFailedError
from retraining.evaluation.champion import find_candidates
from retraining.evaluation.gate import gate
from retraining.operators.evaluation import EvaluationOperator
from retraining.operators.training import TrainingOperator
from retraining.planning.common import PlannedRun
from retraining.planning.evaluation import evaluation_request, with_models
from retraining.planning.source import pack
from retraining.registry.registry import mark_live, package_of, register
from retraining.runs.context import RunLocation
from retraining.runs.results import EvaluationResult, RunResults

from tests.dags.airflow_home import BUCKET, REPOSITORY, ROLE_ARN
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.local_sagemaker.service_model import check_requests
from tests.plugins.conftest import INFERENCE_IMAGE, TRAINING_IMAGE, dataset_files
from tests.plugins.evaluations import NO_RULES
from tests.plugins.models import put_version

pytestmark = pytest.mark.timeout(300)

DATA = f"s3://{BUCKET}/evaluating/data"
CODE = f"s3://{BUCKET}/evaluating/code/0123456789abcdef/sourcedir.tar.gz"
TINY = {"arch": "squeezenet1_1", "image-size": "32", "epochs": "1", "batch-size": "2", "num-workers": "0"}


@pytest.fixture(scope="module")
def source(runtime: RuntimeProcess) -> str:
    """The real code and a small dataset in S3."""
    s3 = runtime.client("s3")
    write(s3, CODE, pack(REPOSITORY / "sagemaker_code"))
    for name, content in dataset_files().items():
        write(s3, f"{DATA}/{name}", content)
    return CODE


def training_request(name: str, seed: int) -> Any:
    channels = [
        {
            "ChannelName": split,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{DATA}/{split}/"}},
        }
        for split in ("train", "valid", "test")
    ]
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": TRAINING_IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "test:accuracy", "Regex": r"\btest_accuracy=(\S+)"}],
        },
        "RoleArn": ROLE_ARN,
        "HyperParameters": {
            **TINY,
            "seed": str(seed),
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": CODE,
        },
        "InputDataConfig": channels,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/evaluating/models"},
        "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/evaluating/checkpoints/{name}"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


@pytest.fixture(scope="module")
def trained(source: str) -> dict[str, dict[str, Any]]:
    """What the task `train` returned for two models."""
    return {
        role: TrainingOperator(
            task_id="train",
            config=training_request(f"{role}-{uuid.uuid4().hex[:6]}", seed),
            deferrable=False,
        ).execute(Context())
        for seed, role in enumerate(("champion", "challenger"), start=1)
    }


@pytest.fixture
def unique() -> str:
    return f"run-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def ours(pipeline: Pipeline, unique: str) -> Pipeline:
    """The dog breeds with a group of this test's own and a short evaluation."""
    changes = {
        "model_package_group": unique,
        "evaluation": {"latency_images": 2, "bootstrap_samples": 200},
        "gate": {"min_accuracy": 0.0, "min_improvement": -1, "max_class_regression": 1},
    }
    return Pipeline.model_validate({**pipeline.model_dump(), **changes})


def planned(pipeline: Pipeline, name: str) -> Any:
    """The request for the evaluation of the run `name`, without the models."""
    values = {field: param.resolve() for field, param in form(pipeline).items()}
    run = PlannedRun(
        pipeline=pipeline,
        settings=RunSettings.from_params(values),
        location=RunLocation(BUCKET, "evaluating", name),
        run_id="manual__2026-01-01T00:00:00+00:00",
        region="us-east-1",
        role=ROLE_ARN,
        code=CODE,
        data="5e5e",
        dataset=DATA,
        left_out=None,
        weights=None,
        best={},
    )
    return evaluation_request(run)


def deployment(name: str, endpoint: str) -> dict[str, Any]:
    """As `plan` builds it: without the model."""
    return {
        "Model": {
            "ModelName": name,
            "PrimaryContainer": {
                "Image": INFERENCE_IMAGE,
                "Environment": {
                    "SAGEMAKER_PROGRAM": "inference.py",
                    "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
                },
            },
            "ExecutionRoleArn": ROLE_ARN,
        },
        "Endpoint": {"EndpointName": endpoint, "EndpointConfigName": name},
    }


def evaluation(
    pipeline: Pipeline, request: Any, training: Any, endpoint: str = "no-such-endpoint"
) -> EvaluationOperator:
    return EvaluationOperator(
        task_id="evaluate",
        config=request,
        training=training,
        endpoint=endpoint,
        package_group=pipeline.package_group,
        deferrable=False,
    )


def evaluate(*given: Any) -> Any:
    """What the task `evaluate` returns; the arguments are those of `evaluation`."""
    return evaluation(*given).execute(Context())


@pytest.fixture(scope="module")
def endpoint(runtime: RuntimeProcess, trained: dict[str, Any]) -> Iterator[str]:
    """An endpoint that serves the champion."""
    sagemaker, name = runtime.client("sagemaker"), f"serving-{uuid.uuid4().hex[:6]}"
    model = deployment(name, name)["Model"]
    container = {**model["PrimaryContainer"], "ModelDataUrl": trained["champion"]["model_artifact"]}
    sagemaker.create_model(**{**model, "PrimaryContainer": container})
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    yield name
    sagemaker.delete_endpoint(EndpointName=name)


def test_the_request_passes_the_service_model(pipeline: Pipeline) -> None:
    request = with_models(planned(pipeline, "some-run"), {"challenger": "s3://b/a.tar.gz", "champion": CODE})
    check_requests({"CreateProcessingJob": request})
    arguments = request["AppSpecification"]["ContainerArguments"]
    assert arguments[arguments.index("--confidence") + 1] == str(pipeline.gate.confidence)
    assert arguments[-2:] == ["--champion", "/opt/ml/processing/input/champion"]
    assert [item["InputName"] for item in request["ProcessingInputs"]] == [
        "code",
        "test",
        "challenger",
        "champion",
    ]


def test_a_first_model_is_evaluated_alone_and_registered(
    trained: dict[str, Any], ours: Pipeline, unique: str, aws: Aws
) -> None:
    training = trained["challenger"]
    operator = evaluation(ours, planned(ours, unique), training)
    result: EvaluationResult = operator.execute(Context())
    assert (result["champion"], result["challenger"]) == (None, training["model_artifact"])
    assert "--champion" not in operator.config["AppSpecification"]["ContainerArguments"]
    assert result["job"] == unique
    assert result["output"].startswith(f"s3://{BUCKET}/retraining/evaluating/{unique}/evaluation/")
    decision = gate(ours, result, NO_RULES, aws)
    figures = decision["figures"]["challenger"]
    assert figures["accuracy"] == pytest.approx(training["metrics"]["test:accuracy"], abs=1e-4)
    assert figures["latency_ms"] is not None
    assert figures["latency_ms"] > 0
    assert decision["sentence"].startswith("The challenger goes live: accuracy ")
    assert all(exists(aws.s3, uri) for uri in decision["charts"])


def test_champion_and_challenger_from_the_endpoint_to_the_registry(
    trained: dict[str, Any],
    ours: Pipeline,
    endpoint: str,
    unique: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    aws = Aws()
    training, champion = trained["challenger"], trained["champion"]["model_artifact"]
    result = evaluate(ours, planned(ours, unique), training, endpoint)
    assert result["champion"] == {
        "endpoint": endpoint,
        "config": endpoint,
        "model": endpoint,
        "artifact": champion,
        "package": None,
    }
    assert result["replaces"] == endpoint
    log = capsys.readouterr().out
    assert "challenger accuracy=" in log
    assert "champion accuracy=" in log
    assert evaluate(ours, planned(ours, unique), training, endpoint) == result  # adopted, not run again

    document = read_json(aws.s3, f"{result['output']}/evaluation.json")
    decision = gate(ours, result, NO_RULES, aws)
    assert decision["champion"] is True
    improvement = decision["figures"]["improvement"]
    assert improvement is not None
    assert improvement["difference"] == document["comparison"]["accuracy"]["difference"]
    assert improvement["confidence"] == 95
    assert [row["support"] for row in decision["figures"]["weakest_classes"]] == [3, 3]

    plan: Any = {
        "run": {
            "name": unique,
            "run_id": "manual__2026-11-22T06:40:00+00:00",
            "pipeline": "dog_breed",
            "output": f"s3://{BUCKET}/evaluating/{unique}",
            "code": CODE,
            "dataset": {"uri": DATA, "digest": "5e" * 32},
            "fingerprint": {},
            "approval": False,
        },
        "deployment": deployment(unique, endpoint),
    }
    results: RunResults = {
        "plan": plan,
        "tuning": None,
        "training": training,
        "evaluation": result,
        "debugger": NO_RULES,
        "gate": decision,
    }
    package = register(ours, results, aws)
    registered = aws.sagemaker.describe_model_package(ModelPackageName=package["arn"])
    quality = registered["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    accuracy = read_json(aws.s3, quality)["multiclass_classification_metrics"]["accuracy"]["value"]
    assert accuracy == decision["figures"]["challenger"]["accuracy"]

    # The package alone is enough to serve the model.
    aws.sagemaker.create_model(
        ModelName=unique,
        ExecutionRoleArn=ROLE_ARN,
        PrimaryContainer={"ModelPackageName": package["arn"]},
    )


def test_a_run_whose_model_is_live_compares_with_the_previous_one(
    trained: dict[str, Any], ours: Pipeline, endpoint: str, unique: str, aws: Aws
) -> None:
    """A re-run of an old run's task must not compare its model with itself."""
    group, live = ours.package_group, trained["champion"]["model_artifact"]
    other = trained["challenger"]["model_artifact"]
    assert find_candidates(live, endpoint, group, aws)["champion"] is None
    before = put_version(aws, group, other)
    mark_live(aws, before, datetime.now(UTC), "previous-config")
    now = put_version(aws, group, live)
    mark_live(aws, now, datetime.now(UTC), endpoint)
    assert find_candidates(live, endpoint, group, aws)["champion"] == {
        "endpoint": endpoint,
        "config": "previous-config",
        "model": None,
        "artifact": other,
        "package": before,
    }
    champion = find_candidates(other, endpoint, group, aws)["champion"]
    assert champion is not None
    assert champion["package"] == now
    package = package_of(aws, group, live)
    assert package is not None
    assert package["ModelPackageArn"] == now


def test_a_champion_whose_model_is_gone_is_named(
    trained: dict[str, Any], ours: Pipeline, endpoint: str, aws: Aws
) -> None:
    champion = trained["champion"]["model_artifact"]
    content = read(aws.s3, champion)
    bucket, key = split_uri(champion)
    aws.s3.delete_object(Bucket=bucket, Key=key)
    try:
        with pytest.raises(CandidateError, match=rf"{endpoint}.*no longer in S3.*delete the endpoint"):
            find_candidates(trained["challenger"]["model_artifact"], endpoint, ours.package_group, aws)
    finally:
        write(aws.s3, champion, content or b"")


def test_a_champion_whose_configuration_was_deleted_is_found_in_the_registry(
    trained: dict[str, Any], ours: Pipeline, endpoint: str, unique: str, aws: Aws
) -> None:
    config = aws.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint)
    aws.sagemaker.delete_endpoint_config(EndpointConfigName=endpoint)
    try:
        wanted = trained["challenger"]["model_artifact"], endpoint, ours.package_group, aws
        with pytest.raises(CandidateError, match=rf"{unique} has no version of it. Delete the endpoint"):
            find_candidates(*wanted)
        artifact = trained["champion"]["model_artifact"]
        arn = put_version(aws, ours.package_group, artifact)
        mark_live(aws, arn, datetime.now(UTC), endpoint)
        champion = find_candidates(*wanted)["champion"]
        assert champion is not None
        assert (champion["package"], champion["artifact"], champion["model"]) == (arn, artifact, None)
    finally:
        aws.sagemaker.create_endpoint_config(
            EndpointConfigName=endpoint, ProductionVariants=config["ProductionVariants"]
        )


def test_what_the_script_says_of_its_failure_is_the_tasks_error(
    source: str, ours: Pipeline, unique: str, aws: Aws
) -> None:
    broken = write(aws.s3, f"s3://{BUCKET}/evaluating/{unique}/model.tar.gz", b"no archive")
    with pytest.raises(JobFailedError, match=rf"processing job {unique} failed: .*challenger in .*cannot be"):
        evaluate(ours, planned(ours, unique), {"model_artifact": broken})


def test_a_killed_task_stops_its_job_and_stopped_is_no_success(
    source: str, ours: Pipeline, unique: str, aws: Aws
) -> None:
    request = planned(ours, unique)
    request["AppSpecification"] = {
        **request["AppSpecification"],
        "ContainerEntrypoint": ["python3", "-c", "import time; print('busy', flush=True); time.sleep(300)"],
    }
    operator = evaluation(ours, request, {"model_artifact": CODE})
    outcome: list[BaseException] = []

    def follow() -> None:
        try:
            operator.execute(Context())
        except JobFailedError as error:
            outcome.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: _started(aws, unique), 60, "the job")
    operator.on_kill()
    thread.join(timeout=150)
    assert "was stopped" in str(outcome[0])
    described = aws.sagemaker.describe_processing_job(ProcessingJobName=unique)
    assert described["ProcessingJobStatus"] == "Stopped"


def test_a_finished_job_of_other_models_is_not_taken_over(
    trained: dict[str, Any], ours: Pipeline, unique: str
) -> None:
    first = evaluate(ours, planned(ours, unique), trained["champion"])
    second = evaluate(ours, planned(ours, unique), trained["challenger"])
    assert (first["job"], second["job"]) == (unique, f"{unique}-r2")
    assert first["output"] != second["output"]


def _started(aws: Aws, name: str) -> bool:
    jobs = aws.sagemaker.list_processing_jobs(NameContains=name)["ProcessingJobSummaries"]
    return bool(jobs) and "ProcessingStartTime" in aws.sagemaker.describe_processing_job(
        ProcessingJobName=name
    )
