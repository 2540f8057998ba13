"""The cost of jobs whose tasks left no result, as a local SageMaker describes them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.costs.billing import actual_cost
from retraining.costs.estimate import estimate
from retraining.runs.results import CostEstimate, RunResults

from tests.dags.airflow_home import BUCKET, ROLE_ARN
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.plugins.conftest import TRAINING_IMAGE, MakeSettings, archive
from tests.plugins.operators.scripts import SCRIPT

ENDED = {"Completed", "Failed", "Stopped"}
NAME = f"billed-{uuid.uuid4().hex[:8]}"


def training_request(name: str, **hyperparameters: str) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {"TrainingImage": TRAINING_IMAGE, "TrainingInputMode": "File"},
        "RoleArn": ROLE_ARN,
        "HyperParameters": {
            "sagemaker_program": "train.py",
            "sagemaker_submit_directory": f"s3://{BUCKET}/billing/sourcedir.tar.gz",
            **hyperparameters,
        },
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/billing/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def tuning_request(name: str) -> dict[str, Any]:
    training = training_request(name)
    metric = {"Name": "valid:accuracy", "Regex": r"\bvalid_accuracy=(\S+)"}
    lr = {"Name": "lr", "MinValue": "0.1", "MaxValue": "0.9", "ScalingType": "Linear"}
    static = training.pop("HyperParameters")
    del training["TrainingJobName"]
    training["AlgorithmSpecification"]["MetricDefinitions"] = [metric]
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": metric["Name"]},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": {"ContinuousParameterRanges": [lr]},
        },
        "TrainingJobDefinition": {**training, "StaticHyperParameters": static},
    }


@pytest.fixture(scope="module")
def requests(runtime: RuntimeProcess) -> dict[str, Any]:
    """The requests of a tuning job that ran and of a training job that failed."""
    runtime.client("s3").put_object(Bucket=BUCKET, Key="billing/sourcedir.tar.gz", Body=archive(train=SCRIPT))
    sagemaker = runtime.client("sagemaker")
    tuning, training = tuning_request(NAME), training_request(NAME, behave="badly")
    sagemaker.create_hyper_parameter_tuning_job(**tuning)
    sagemaker.create_training_job(**training)
    wait_for(
        lambda: (
            sagemaker.describe_training_job(TrainingJobName=NAME)["TrainingJobStatus"] in ENDED
            and sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=NAME)[
                "HyperParameterTuningJobStatus"
            ]
            in ENDED
        ),
        120,
        f"the jobs {NAME}",
        every=0.5,
    )
    return {"tuning": tuning, "training": training}


def planned(costs: CostEstimate | None = None, **requests: Any) -> Any:
    """The part of a plan that names jobs and prices; a request that is not given was never sent."""
    unsent = {
        "tuning": None,
        "training": {"TrainingJobName": "never-started"},
        "evaluation": {"ProcessingJobName": "never-started"},
    }
    return {"run": {"cost": costs}, **unsent, **requests}


@pytest.mark.parametrize("spot", [False, True])
def test_jobs_without_a_result_are_looked_up(
    pipeline: Pipeline, make_settings: MakeSettings, aws: Aws, requests: dict[str, Any], spot: bool
) -> None:
    costs = estimate(pipeline, make_settings(spot=spot), "us-east-1")
    spent = actual_cost(aws, {"plan": planned(costs, **requests)})
    trial, training = spent["jobs"]
    assert (trial["kind"], trial["status"]) == ("tuning", "Completed")
    assert (training["job"], training["status"]) == (NAME, "Failed")
    assert trial["billable_seconds"]
    assert training["usd"]
    assert (training["spot_saving"] is not None) is spot
    assert spent["complete"]


def test_earlier_attempts_are_counted_too(
    pipeline: Pipeline, make_settings: MakeSettings, aws: Aws, requests: dict[str, Any]
) -> None:
    costs = estimate(pipeline, make_settings(), "us-east-1")
    last: Any = {"job": f"{NAME}-r2", "status": "Completed", "seconds": 5.0, "billable_seconds": 5}
    last["Training"] = {}
    results: RunResults = {"plan": planned(costs, training=requests["training"]), "training": last}
    assert [(row["job"], row["status"]) for row in actual_cost(aws, results)["jobs"]] == [
        (NAME, "Failed"),
        (f"{NAME}-r2", "Completed"),
    ]


def test_what_never_started_costs_nothing(aws: Aws) -> None:
    spent = actual_cost(
        aws, {"plan": planned(tuning={"HyperParameterTuningJobName": "never-started"}), "tuning": None}
    )
    assert (spent["jobs"], spent["usd"]) == ([], 0)
    assert actual_cost(aws, {})["jobs"] == []
