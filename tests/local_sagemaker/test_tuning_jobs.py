"""Tuning jobs through boto3, with real training jobs of a script that only needs the standard library."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.conftest import BUCKET, ROLE_ARN, MakeRuntime
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.9-cpu-py312"
CODE = f"s3://{BUCKET}/tuning-tests/sourcedir.tar.gz"
ENDED = {"Completed", "Failed", "Stopped"}
SCRIPT = """
import argparse
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--seconds", type=float, default=0.0)
parser.add_argument("--fail", type=int, default=0)
parser.add_argument("--quiet", type=int, default=0)
options = parser.parse_args()
if options.fail:
    raise ValueError(f"rate={options.rate} is not for this model")
for epoch in range(1, options.epochs + 1):
    accuracy = (1 - (options.rate - 0.7) ** 2) * epoch / options.epochs
    if not options.quiet:
        print(f"epoch={epoch} accuracy={accuracy:.6f}", flush=True)
    time.sleep(options.seconds)
with open(os.path.join(os.environ["SM_MODEL_DIR"], "x"), "w") as model:
    model.write(str(options.rate))
"""

Tune = Callable[..., str]


def upload_script(runtime: RuntimeProcess) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("train.py")
        member.size = len(SCRIPT.encode())
        tar.addfile(member, io.BytesIO(SCRIPT.encode()))
    key = CODE.removeprefix(f"s3://{BUCKET}/")
    runtime.client("s3").put_object(Bucket=BUCKET, Key=key, Body=archive.getvalue())


def request(
    name: str,
    *,
    strategy: str = "Random",
    jobs: int = 2,
    parallel: int = 2,
    static: dict[str, Any] | None = None,
    values: list[str] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """A CreateHyperParameterTuningJob request that tunes `rate`, continuous or one of `values`."""
    continuous = {"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1"}]}
    categorical = {"CategoricalParameterRanges": [{"Name": "rate", "Values": values}]}
    hyperparameters = {"sagemaker_program": "train.py", "sagemaker_submit_directory": CODE}
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
            "ParameterRanges": continuous if values is None else categorical,
            "RandomSeed": 1,
            **config,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "accuracy", "Regex": r"\baccuracy=(\S+)"}],
            },
            "RoleArn": ROLE_ARN,
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/tuning-tests/output"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
            "StaticHyperParameters": {
                **hyperparameters,
                **{key: str(value) for key, value in (static or {}).items()},
            },
        },
    }


def new_name(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:6]}"


def describe(client: Any, name: str) -> dict[str, Any]:
    response: dict[str, Any] = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    return response


def wait_until_ended(client: Any, name: str, seconds: float = 120) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        response = describe(client, name)
        return response if response["HyperParameterTuningJobStatus"] in ENDED else None

    return wait_for(ended, seconds, f"the end of tuning job {name}", every=0.2)


def trials(client: Any, name: str, **options: Any) -> list[dict[str, Any]]:
    paginator = client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
    pages = paginator.paginate(HyperParameterTuningJobName=name, **options)
    return [summary for page in pages for summary in page["TrainingJobSummaries"]]


def objective(summary: dict[str, Any]) -> float:
    value: float = summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return value


@pytest.fixture(scope="module")
def tune(runtime: RuntimeProcess, sagemaker: Any) -> Tune:
    """Creates a tuning job and returns its name."""
    upload_script(runtime)

    def create(what: str, **options: Any) -> str:
        name = new_name(what)
        sagemaker.create_hyper_parameter_tuning_job(**request(name, **options))
        return name

    return create


@pytest.fixture(scope="module")
def finished(tune: Tune, sagemaker: Any) -> str:
    """A tuning job of four trials, two at a time, that has ended."""
    name = tune("search", jobs=4, parallel=2, static={"epochs": 3})
    wait_until_ended(sagemaker, name)
    return name


def test_the_search_ends_with_its_best_trial(sagemaker: Any, finished: str) -> None:
    response = describe(sagemaker, finished)
    summaries = trials(sagemaker, finished)
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert response["TrainingJobStatusCounters"]["Completed"] == len(summaries) == 4
    assert response["ObjectiveStatusCounters"] == {"Succeeded": 4, "Pending": 0, "Failed": 0}
    assert response["BestTrainingJob"] == max(summaries, key=objective)
    assert response["HyperParameterTuningEndTime"] >= response["CreationTime"]
    assert response["ConsumedResources"]["RuntimeInSeconds"] > 0
    for summary in summaries:
        rate = float(summary["TunedHyperParameters"]["rate"])
        assert objective(summary) == pytest.approx(1 - (rate - 0.7) ** 2, abs=1e-5)


def test_trials_are_training_jobs_of_the_tuning_job(sagemaker: Any, finished: str) -> None:
    response = describe(sagemaker, finished)
    summaries = trials(sagemaker, finished)
    for number, summary in enumerate(summaries, 1):
        job = sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
        assert job["TrainingJobName"].startswith(f"{finished}-{number:03d}-")
        assert job["TuningJobArn"] == response["HyperParameterTuningJobArn"]
        assert job["HyperParameters"]["_tuning_objective_metric"] == "accuracy"
        assert job["HyperParameters"]["rate"] == summary["TunedHyperParameters"]["rate"]
        assert job["FinalMetricDataList"][0]["Value"] == objective(summary)
        assert job["TrainingEndTime"] == summary["TrainingEndTime"]


def test_at_most_the_parallel_trials_ran_at_once(sagemaker: Any, finished: str) -> None:
    jobs = [
        sagemaker.describe_training_job(TrainingJobName=summary["TrainingJobName"])
        for summary in trials(sagemaker, finished)
    ]
    at_once = [
        sum(other["CreationTime"] <= job["CreationTime"] < other["TrainingEndTime"] for other in jobs)
        for job in jobs
    ]
    assert max(at_once) == 2


def test_trials_are_listed_in_order_by_status_and_in_pages(sagemaker: Any, finished: str) -> None:
    best_first = trials(sagemaker, finished, SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    assert [objective(item) for item in best_first] == sorted(map(objective, best_first), reverse=True)
    paged = trials(sagemaker, finished, PaginationConfig={"PageSize": 3})
    assert [item["TrainingJobName"] for item in paged] == sorted(item["TrainingJobName"] for item in paged)
    assert trials(sagemaker, finished, StatusEquals="Failed") == []


def test_tuning_jobs_are_listed(sagemaker: Any, finished: str) -> None:
    (summary,) = sagemaker.list_hyper_parameter_tuning_jobs(NameContains=finished)[
        "HyperParameterTuningJobSummaries"
    ]
    assert summary["Strategy"] == "Random"
    assert summary["TrainingJobStatusCounters"]["Completed"] == 4
    nothing = sagemaker.list_hyper_parameter_tuning_jobs(NameContains=finished, StatusEquals="Failed")
    assert nothing["HyperParameterTuningJobSummaries"] == []


def test_warm_start_knows_the_overall_best(sagemaker: Any, finished: str) -> None:
    name = new_name("warm")
    parents = [{"HyperParameterTuningJobName": finished}]
    warm = {"WarmStartType": "IdenticalDataAndAlgorithm", "ParentHyperParameterTuningJobs": parents}
    body = request(name, strategy="Bayesian", jobs=1, parallel=1, static={"epochs": 3})
    sagemaker.create_hyper_parameter_tuning_job(**body, WarmStartConfig=warm)
    response = wait_until_ended(sagemaker, name)
    parent = describe(sagemaker, finished)
    expected = max(objective(response["BestTrainingJob"]), objective(parent["BestTrainingJob"]))
    assert objective(response["OverallBestTrainingJob"]) == expected
    assert response["WarmStartConfig"] == warm
    assert "OverallBestTrainingJob" not in parent


def test_early_stopping_stops_a_hopeless_trial(tune: Tune, sagemaker: Any) -> None:
    name = tune(
        "early",
        strategy="Grid",
        values=["0.7", "0.0"],
        parallel=1,
        static={"epochs": 60, "seconds": 0.1},
        TrainingJobEarlyStoppingType="Auto",
    )
    wait_until_ended(sagemaker, name)
    good, bad = trials(sagemaker, name)
    assert (good["TrainingJobStatus"], bad["TrainingJobStatus"]) == ("Completed", "Stopped")
    assert bad["ObjectiveStatus"] == "Succeeded"
    assert objective(bad) < 0.5 * (1 - 0.7**2)  # not near its last epoch


def test_hyperband_stops_trials(tune: Tune, sagemaker: Any) -> None:  # tune: the script is in S3
    name = "band"  # a trial's bracket follows from the name
    body = request(
        name,
        strategy="Hyperband",
        jobs=6,
        parallel=1,
        static={"epochs": 9, "seconds": 0.3},
        StrategyConfig={"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": 9}},
    )
    sagemaker.create_hyper_parameter_tuning_job(**body)
    response = wait_until_ended(sagemaker, name)
    counters = response["TrainingJobStatusCounters"]
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert counters["Completed"] + counters["Stopped"] == 6
    assert counters["Stopped"] > 0


def test_stop_stops_running_trials(tune: Tune, sagemaker: Any) -> None:
    name = tune("stop", jobs=9, static={"epochs": 600, "seconds": 0.1})
    wait_for(
        lambda: any(
            "FinalHyperParameterTuningJobObjectiveMetric" in item for item in trials(sagemaker, name)
        ),
        60,
        "a first report",
        every=0.2,
    )
    sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert describe(sagemaker, name)["HyperParameterTuningJobStatus"] == "Stopping"
    response = wait_until_ended(sagemaker, name)
    assert response["HyperParameterTuningJobStatus"] == "Stopped"
    assert response["TrainingJobStatusCounters"]["Stopped"] == 2
    with pytest.raises(ClientError, match="ValidationException"):
        sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def test_a_script_that_always_fails_fails_the_tuning_job(tune: Tune, sagemaker: Any) -> None:
    name = tune("fail", static={"fail": 1})
    response = wait_until_ended(sagemaker, name)
    assert response["HyperParameterTuningJobStatus"] == "Failed"
    assert response["FailureReason"].startswith("No training job succeeded after 2 attempts")
    assert "is not for this model" in trials(sagemaker, name)[0]["FailureReason"]


def test_a_script_without_the_objective_fails_the_tuning_job(tune: Tune, sagemaker: Any) -> None:
    name = tune("quiet", jobs=1, static={"quiet": 1})
    response = wait_until_ended(sagemaker, name)
    assert response["HyperParameterTuningJobStatus"] == "Failed"
    assert response["FailureReason"].startswith("No objective metrics found")
    assert response["ObjectiveStatusCounters"]["Failed"] == 1


def test_a_search_continues_after_a_crash(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    runtime.client("s3").create_bucket(Bucket=BUCKET)
    upload_script(runtime)
    client, name = runtime.client("sagemaker"), new_name("crash")
    body = request(name, strategy="Bayesian", jobs=5, static={"epochs": 10, "seconds": 0.1})
    client.create_hyper_parameter_tuning_job(**body, Tags=[{"Key": "team", "Value": "breeds"}])
    wait_for(
        lambda: [item for item in trials(client, name) if item["TrainingJobStatus"] in ENDED],
        120,
        "the end of a trial",
        every=0.1,
    )
    assert trials(client, name, StatusEquals="Failed") == []
    before = {item["TrainingJobName"]: item["TunedHyperParameters"] for item in trials(client, name)}
    runtime.kill()
    runtime.start()
    response = wait_until_ended(client, name)
    after = {item["TrainingJobName"]: item["TunedHyperParameters"] for item in trials(client, name)}
    everything = client.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert response["ObjectiveStatusCounters"]["Succeeded"] == 5
    assert {job["TrainingJobName"] for job in everything} == after.keys()
    assert before.items() <= after.items()
    assert len(after) == 5
    for arn in (response["HyperParameterTuningJobArn"], response["BestTrainingJob"]["TrainingJobArn"]):
        assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "breeds"}]


NO_OBJECTS = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/nothing"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"InputDataConfig": [{"ChannelName": "train", "DataSource": NO_OBJECTS}]}, "nothing"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/output"}}, "no-such-bucket"),
        (
            {
                "AlgorithmSpecification": {
                    "TrainingImage": "registry/unknown:1",
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "accuracy", "Regex": "(.*)"}],
                }
            },
            "registry/unknown:1",
        ),
    ],
)
def test_a_request_whose_trials_would_all_fail_is_refused(
    sagemaker: Any, tune: Tune, change: dict[str, Any], message: str
) -> None:
    body = request(new_name("refused"))
    body["TrainingJobDefinition"].update(change)
    with pytest.raises(ClientError, match=message) as caught:
        sagemaker.create_hyper_parameter_tuning_job(**body)
    assert caught.value.response["Error"]["Code"] == "ValidationException"


def test_missing_and_taken_names(sagemaker: Any, finished: str) -> None:
    def code(call: Callable[..., Any], **options: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(**options)
        return str(caught.value.response["Error"]["Code"])

    missing = {"HyperParameterTuningJobName": "nobody"}
    assert code(sagemaker.describe_hyper_parameter_tuning_job, **missing) == "ValidationException"
    assert code(sagemaker.stop_hyper_parameter_tuning_job, **missing) == "ResourceNotFound"
    assert code(sagemaker.create_hyper_parameter_tuning_job, **request(finished)) == "ResourceInUse"


def test_a_tuning_job_that_ended_can_be_deleted(tune: Tune, sagemaker: Any) -> None:
    name = tune("gone", jobs=1)
    with pytest.raises(ClientError, match="InProgress"):
        sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    best = wait_until_ended(sagemaker, name)["BestTrainingJob"]["TrainingJobName"]
    sagemaker.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    with pytest.raises(ClientError, match="can't find"):
        describe(sagemaker, name)
    assert sagemaker.describe_training_job(TrainingJobName=best)["TrainingJobStatus"] == "Completed"
