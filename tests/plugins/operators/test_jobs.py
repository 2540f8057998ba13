"""The operators against a local SageMaker that runs the jobs: adoption, stops, failures."""

from __future__ import annotations

import copy
import re
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException
from botocore.stub import Stubber
from retraining.aws.clients import Aws
from retraining.errors import JobFailedError
from retraining.jobs.followers import TuningFollower
from retraining.jobs.leftovers import stop_leftovers
from retraining.operators.training import TrainingOperator
from retraining.operators.tuning import TuningOperator
from retraining.runs.naming import RUN_ID_TAG, run_name

from tests.dags.airflow_home import BUCKET, ROLE_ARN
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.plugins.conftest import TRAINING_IMAGE, archive
from tests.plugins.operators.deferral import complete
from tests.plugins.operators.scripts import SCRIPT

CONTEXT = Context()


@pytest.fixture
def sagemaker(runtime: RuntimeProcess) -> Any:
    return runtime.client("sagemaker")


@pytest.fixture
def s3(runtime: RuntimeProcess) -> Any:
    return runtime.client("s3")


@pytest.fixture
def unique() -> str:
    """A name of this test's own."""
    return f"job-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def training(s3: Any, unique: str) -> Callable[..., Any]:
    """A training request; hyperparameters by keyword."""
    s3.put_object(Bucket=BUCKET, Key="operators/sourcedir.tar.gz", Body=archive(train=SCRIPT))
    s3.put_object(Bucket=BUCKET, Key="operators/train/a.txt", Body=b"x")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/operators/train/"}

    def request(**hyperparameters: str) -> dict[str, Any]:
        return {
            "TrainingJobName": unique,
            "AlgorithmSpecification": {
                "TrainingImage": TRAINING_IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [
                    {"Name": "valid:accuracy", "Regex": r"\bvalid_accuracy=(\S+)"},
                    {"Name": "test:accuracy", "Regex": r"\btest_accuracy=(\S+)"},
                ],
            },
            "RoleArn": ROLE_ARN,
            "HyperParameters": {
                "sagemaker_program": "train.py",
                "sagemaker_submit_directory": f"s3://{BUCKET}/operators/sourcedir.tar.gz",
                **hyperparameters,
            },
            "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source}}],
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/operators/out"},
            "CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/operators/checkpoints/{unique}"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        }

    return request


def names(sagemaker: Any, prefix: str) -> list[str]:
    jobs = sagemaker.list_training_jobs(NameContains=prefix)["TrainingJobSummaries"]
    return sorted(job["TrainingJobName"] for job in jobs)


@pytest.fixture(params=[True, False], ids=["deferred", "on a worker"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def run(kind: Any, config: Any, *, deferrable: bool = True) -> Any:
    """What a task returns; each of its processes gets the planned request anew."""
    return complete(lambda: kind(task_id="job", config=copy.deepcopy(config), deferrable=deferrable))


def test_training_returns_metrics_and_shows_its_log(
    training: Callable[..., Any], unique: str, capsys: pytest.CaptureFixture[str], *, deferrable: bool
) -> None:
    result = run(TrainingOperator, training(lr="0.25"), deferrable=deferrable)
    assert result["job"] == unique
    assert result["metrics"] == {"valid:accuracy": 0.25, "test:accuracy": 0.75}
    assert result["model_artifact"] == f"s3://{BUCKET}/operators/out/{unique}/output/model.tar.gz"
    assert result["seconds"] > 0
    assert isinstance(result["Training"]["TrainingStartTime"], str)
    log = capsys.readouterr().out
    assert log.count("final test_accuracy=0.75") == 1
    assert "[SageMaker] Completed" in log


def test_a_second_attempt_takes_over_what_the_first_one_did(
    training: Callable[..., Any], unique: str, sagemaker: Any
) -> None:
    sagemaker.create_training_job(**training(lr="0.25"))
    first = run(TrainingOperator, training(lr="0.25"))
    second = run(TrainingOperator, training(lr="0.25"))
    assert first == second
    assert names(sagemaker, unique) == [unique]


def test_a_finished_job_of_another_request_is_not_taken_over(
    training: Callable[..., Any], unique: str, sagemaker: Any
) -> None:
    run(TrainingOperator, training(lr="0.25"))
    result = run(TrainingOperator, training(lr="0.5"))
    assert result["job"] == f"{unique}-r2"
    assert result["metrics"]["valid:accuracy"] == 0.5
    assert names(sagemaker, unique) == [unique, f"{unique}-r2"]


def test_a_failure_of_the_script_is_not_retried_and_a_later_attempt_is_a_new_job(
    training: Callable[..., Any], unique: str, sagemaker: Any
) -> None:
    config = training(behave="badly")
    with pytest.raises(JobFailedError, match="the learning rate is too high; lower it"):
        run(TrainingOperator, config)
    with pytest.raises(JobFailedError, match=f"{unique}-r2 failed"):
        run(TrainingOperator, training(behave="badly"))
    assert names(sagemaker, unique) == [unique, f"{unique}-r2"]


def test_a_killed_task_stops_its_job_and_stopped_is_no_success(
    training: Callable[..., Any], unique: str, sagemaker: Any
) -> None:
    operator = TrainingOperator(task_id="train", config=training(behave="endlessly"), deferrable=False)
    outcome: list[BaseException] = []

    def follow() -> None:
        try:
            operator.execute(CONTEXT)
        except JobFailedError as error:
            outcome.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: names(sagemaker, unique), 60, "the job")
    operator.on_kill()
    thread.join(timeout=150)
    assert "was stopped" in str(outcome[0])
    assert sagemaker.describe_training_job(TrainingJobName=unique)["TrainingJobStatus"] == "Stopped"


def test_killing_a_task_that_has_no_job_yet_is_harmless(training: Callable[..., Any]) -> None:
    TrainingOperator(task_id="train", config=training()).on_kill()


@pytest.fixture
def tuning(training: Callable[..., Any], unique: str) -> Any:
    """A tuning request of three trials, two at a time."""
    job = training()
    left_out = {"TrainingJobName", "CheckpointConfig"}
    definition = {key: value for key, value in job.items() if key not in left_out}
    definition["StaticHyperParameters"] = definition.pop("HyperParameters")
    return {
        "HyperParameterTuningJobName": unique,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "RandomSeed": 1,
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "valid:accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "lr", "MinValue": "0.1", "MaxValue": "0.9"}]
            },
        },
        "TrainingJobDefinition": definition,
    }


def test_tuning_shows_its_trials_and_returns_the_best(
    tuning: Any, unique: str, capsys: pytest.CaptureFixture[str], sagemaker: Any
) -> None:
    result = run(TuningOperator, tuning.copy())
    assert [trial["status"] for trial in result["trials"]] == ["Completed"] * 3
    objectives = {trial["name"]: trial["objective"] for trial in result["trials"]}
    assert result["best"]["objective"] == max(objectives.values())
    assert float(result["best"]["hyperparameters"]["lr"]) == pytest.approx(result["best"]["objective"])
    log = capsys.readouterr().out
    assert all(f"Trial {name}: Completed objective=" in log for name in objectives)
    again = run(TuningOperator, tuning.copy())
    assert again == result
    assert (
        len(
            sagemaker.list_hyper_parameter_tuning_jobs(NameContains=unique)[
                "HyperParameterTuningJobSummaries"
            ]
        )
        == 1
    )


def test_trials_that_fail_say_why_once(tuning: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tuning["TrainingJobDefinition"]["StaticHyperParameters"]["behave"] = "badly"
    with pytest.raises(
        JobFailedError, match=r"3 of 3 trials failed: .*the learning rate is too high; lower it"
    ):
        run(TuningOperator, tuning)
    log = capsys.readouterr().out
    assert log.count("too high; lower it") == 1
    assert len(re.findall(r"-00[23]-\S+ failed: as \S+-001-", log)) == 2


def test_a_running_trial_has_a_line_a_minute(tuning: Any, aws: Aws, sagemaker: Any, unique: str) -> None:
    tuning["TrainingJobDefinition"]["StaticHyperParameters"]["behave"] = "endlessly"
    sagemaker.create_hyper_parameter_tuning_job(**tuning)
    follower = TuningFollower(aws, {"name": unique})
    said: list[str] = []

    def minute_later() -> bool:
        follower.position["said"] = "2026-01-01T00:00:00+00:00"
        said.extend(line.text for line in follower.poll())
        return any("epoch=1 train_loss=0.5 valid_accuracy=" in line for line in said)

    wait_for(minute_later, 60, "an epoch")
    assert not [
        line.text for line in follower.poll() if "epoch=" in line.text
    ]  # not before the minute is over
    follower.stop()


def test_no_tuning_request_skips_the_task() -> None:
    with pytest.raises(AirflowSkipException):
        run(TuningOperator, None)


def test_the_next_run_stops_what_outlived_its_run(
    training: Callable[..., Any], unique: str, sagemaker: Any, aws: Aws
) -> None:
    when = datetime(2026, 1, 5, tzinfo=UTC)
    states = {
        "over": "failed",
        "going on": "running",
        "deleted": None,
        "untagged": None,
        "this one": "running",
    }
    jobs = {run: run_name(unique, run, when) for run in states}
    for run_id, name in jobs.items():
        tags = [] if run_id == "untagged" else [{"Key": RUN_ID_TAG, "Value": run_id}]
        sagemaker.create_training_job(
            **training(behave="endlessly") | {"TrainingJobName": name, "Tags": tags}
        )
    try:
        assert stop_leftovers(aws, unique, jobs["this one"], states.get) == [jobs["over"]]
        found = {
            run_id: sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]
            for run_id, name in jobs.items()
        }
        assert found.pop("over") in {"Stopping", "Stopped"}
        assert set(found.values()) == {"InProgress"}
    finally:
        for name in set(jobs.values()) - {jobs["over"]}:
            sagemaker.stop_training_job(TrainingJobName=name)


def test_a_run_goes_on_where_leftovers_cannot_be_looked_for(aws: Aws, unique: str) -> None:
    with Stubber(aws.sagemaker) as stubber:
        stubber.add_client_error("list_hyper_parameter_tuning_jobs", "AccessDeniedException", "no")
        assert stop_leftovers(aws, unique, "this", lambda _: "failed") == []
