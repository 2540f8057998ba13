"""The plan: requests that SageMaker takes, names that follow from the run, errors before money is spent."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.errors import PlanError
from retraining.planning.training import find_weights, with_best_trial

from tests.dags.airflow_home import BUCKET, ROLE_ARN
from tests.local_sagemaker.service_model import check_requests
from tests.plugins.plans import DATASET, MakePlan, make_plan, source

__all__ = ["make_plan", "source"]  # fixtures


@pytest.fixture
def plan(make_plan: MakePlan) -> Any:
    return make_plan()


def test_every_request_passes_the_service_model(plan: Any) -> None:
    deployment = plan["deployment"]
    check_requests(
        {
            "CreateHyperParameterTuningJob": plan["tuning"],
            "CreateTrainingJob": with_best_trial(plan["training"], None),
            "CreateProcessingJob": plan["evaluation"],
            "CreateModel": deployment["Model"],
            "CreateEndpointConfig": deployment["EndpointConfig"],
            "CreateEndpoint": deployment["Endpoint"],
        }
    )


def test_the_search_space_is_the_pipelines(plan: Any) -> None:
    config = plan["tuning"]["HyperParameterTuningJobConfig"]
    assert config["Strategy"] == "Bayesian"
    assert config["HyperParameterTuningJobObjective"] == {"Type": "Maximize", "MetricName": "valid:accuracy"}
    assert config["ParameterRanges"] == {
        "ContinuousParameterRanges": [
            {"Name": "lr", "MinValue": "0.01", "MaxValue": "0.1", "ScalingType": "Auto"},
            {"Name": "momentum", "MinValue": "0.5", "MaxValue": "0.9", "ScalingType": "Auto"},
        ],
        "CategoricalParameterRanges": [{"Name": "batch-size", "Values": ["32", "64"]}],
        "IntegerParameterRanges": [
            {"Name": "epochs", "MinValue": "5", "MaxValue": "10", "ScalingType": "Auto"}
        ],
    }
    static = plan["tuning"]["TrainingJobDefinition"]["StaticHyperParameters"]
    assert not {"lr", "momentum", "batch-size", "epochs"} & static.keys()
    assert static["arch"] == "resnet50"


def test_the_form_limits_the_epochs(make_plan: MakePlan) -> None:
    ranges = make_plan(epochs_min=1, epochs_max=2)["tuning"]["HyperParameterTuningJobConfig"][
        "ParameterRanges"
    ]
    assert ranges["IntegerParameterRanges"][0]["MaxValue"] == "2"
    fixed = make_plan(epochs_min=3, epochs_max=3)["tuning"]
    assert "IntegerParameterRanges" not in fixed["HyperParameterTuningJobConfig"]["ParameterRanges"]
    assert fixed["TrainingJobDefinition"]["StaticHyperParameters"]["epochs"] == "3"


def test_training_carries_debugger_and_profiler(plan: Any) -> None:
    training = plan["training"]
    rules = {rule["RuleConfigurationName"]: rule for rule in training["DebugRuleConfigurations"]}
    assert set(rules) == {"VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization"}
    assert all("sagemaker-debugger-rules" in rule["RuleEvaluatorImage"] for rule in rules.values())
    assert [r["RuleConfigurationName"] for r in training["ProfilerRuleConfigurations"]] == ["ProfilerReport"]
    profiler = training["ProfilerConfig"]
    assert profiler["ProfilingIntervalInMilliseconds"] == 500
    assert '"NumSteps": 10' in profiler["ProfilingParameters"]["DetailedProfilingConfig"]
    hook = training["DebugHookConfig"]
    assert hook["HookParameters"] == {"train.save_interval": "100", "eval.save_interval": "10"}
    collections = {c["CollectionName"]: c for c in hook["CollectionConfigurations"]}
    assert {"losses", "gradients", "relu_input"} <= collections.keys()
    assert all("save_interval" not in str(c) for c in collections.values())


def test_debugger_can_be_off(make_plan: MakePlan) -> None:
    training = make_plan(of={"debugger": "off"})["training"]
    assert training["ProfilerConfig"] == {"DisableProfiler": True}
    assert not {"DebugHookConfig", "DebugRuleConfigurations", "ProfilerRuleConfigurations"} & training.keys()


def test_a_rule_may_stop_the_training(make_plan: MakePlan) -> None:
    rules = {"VanishingGradient": {"stop_training": True, "parameters": {"threshold": "0.001"}}}
    parameters = make_plan(of={"rules": rules})["training"]["DebugRuleConfigurations"][0]["RuleParameters"]
    assert parameters["threshold"] == "0.001"
    assert "stoptraining" in parameters["action_json"]


def test_names_and_uris_follow_from_the_run(plan: Any, make_plan: MakePlan) -> None:
    name = plan["run"]["name"]
    assert name.startswith("dog-breed-2611220640-")
    assert plan["tuning"]["HyperParameterTuningJobName"] == plan["training"]["TrainingJobName"] == name
    assert plan["run"]["output"] == f"s3://{BUCKET}/retraining/dog_breed/{name}"
    assert plan["run"]["code"].startswith(f"s3://{BUCKET}/retraining/dog_breed/code/")
    assert plan["training"]["RoleArn"] == ROLE_ARN
    assert make_plan() == plan


def test_the_best_hyperparameters_reach_the_training(plan: Any) -> None:
    best = {"lr": "0.034", "batch-size": "64", "epochs": "7", "_tuning_objective_metric": "valid:accuracy"}
    tuning: Any = {"best": {"hyperparameters": best}}
    chosen = with_best_trial(plan["training"], tuning)
    hyperparameters = chosen["HyperParameters"]
    assert (hyperparameters["lr"], hyperparameters["batch-size"], hyperparameters["epochs"]) == (
        "0.034",
        "64",
        "7",
    )
    assert hyperparameters["momentum"] == "0.9"
    assert hyperparameters["arch"] == "resnet50"
    assert "_tuning_objective_metric" not in hyperparameters
    unchanged = with_best_trial(plan["training"], None)
    assert unchanged["HyperParameters"] == plan["training"]["HyperParameters"]
    assert unchanged["CheckpointConfig"]["S3Uri"] != chosen["CheckpointConfig"]["S3Uri"]


def test_other_data_behind_the_same_uris_makes_other_jobs(make_plan: MakePlan, plan: Any) -> None:
    other = make_plan(dataset={**DATASET, "digest": "0f" * 32})
    assert other["training"]["InputDataConfig"] == plan["training"]["InputDataConfig"]
    assert other["training"]["HyperParameters"] != plan["training"]["HyperParameters"]
    definitions = [p["tuning"]["TrainingJobDefinition"] for p in (plan, other)]
    assert definitions[0]["StaticHyperParameters"] != definitions[1]["StaticHyperParameters"]
    assert other["evaluation"]["Environment"] != plan["evaluation"]["Environment"]
    checkpoints = [with_best_trial(p["training"], None)["CheckpointConfig"]["S3Uri"] for p in (plan, other)]
    assert checkpoints[0] != checkpoints[1]


def test_a_run_without_tuning_has_no_tuning_request(make_plan: MakePlan) -> None:
    plan = make_plan(skip_tuning=True, epochs_min=2, epochs_max=4)
    assert plan["tuning"] is None
    assert plan["training"]["HyperParameters"]["epochs"] == "4"


def test_spot_capacity_waits_and_continues_from_checkpoints(make_plan: MakePlan) -> None:
    plan = make_plan(spot=True)
    for request in (plan["training"], plan["tuning"]["TrainingJobDefinition"]):
        assert request["EnableManagedSpotTraining"] is True
        assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 14400, "MaxWaitTimeInSeconds": 18000}
    assert plan["training"]["CheckpointConfig"]["S3Uri"].startswith(plan["run"]["output"])
    assert "MaxWaitTimeInSeconds" not in make_plan()["training"]["StoppingCondition"]


def test_weights_are_a_channel_if_there_are_any(make_plan: MakePlan, aws: Aws) -> None:
    def channels(**form: Any) -> list[str]:
        return [c["ChannelName"] for c in make_plan(**form)["training"]["InputDataConfig"]]

    assert channels() == ["train", "valid", "test"]
    key = "pretrained/resnet18/resnet18.safetensors"
    aws.s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(200_000))
    try:
        assert channels(arch="resnet18") == ["train", "valid", "test", "pretrained"]
    finally:
        aws.s3.delete_object(Bucket=BUCKET, Key=key)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"weights.onnx": bytes(200_000)}, "weights.onnx is not a weights file; one that ends in .pth"),
        ({"resnet18.pth": b"404: Not Found"}, "resnet18.pth has 14 bytes, too few for the weights"),
        ({"a.pth": b"", "b.pth": b""}, r"holds 2 files \(a.pth, b.pth\); keep the one to start from"),
    ],
)
def test_a_file_that_cannot_be_weights_is_named(
    aws: Aws, upload: Callable[[str, dict[str, bytes]], None], files: dict[str, bytes], message: str
) -> None:
    folder = f"weights-{uuid.uuid4().hex[:6]}"
    upload(f"{folder}/resnet18", files)
    with pytest.raises(PlanError, match=message):
        find_weights(aws.s3, BUCKET, folder, "resnet18")


def test_the_instance_type_chooses_the_container(make_plan: MakePlan) -> None:
    def image(instance_type: str) -> str:
        plan = make_plan(instance_type=instance_type)
        return str(plan["training"]["AlgorithmSpecification"]["TrainingImage"])

    assert image("ml.m5.xlarge").endswith("/pytorch:2.13-cpu-amzn2023-sagemaker")
    assert image("ml.g4dn.xlarge").endswith("/pytorch:2.13-cu133-amzn2023-sagemaker")


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"role": "NoSuchRole"}, "There is no IAM role NoSuchRole"),
        ({"rules": {"Overfitt": {}}}, r"no Debugger rule 'Overfitt' \(did you mean 'Overfit'\?\)"),
        (
            {"rules": {"Overfitt": {}}, "debugger": "in_job"},
            r"no Debugger rule 'Overfitt' \(did you mean 'Overfit'\?\)",
        ),
        ({"evaluation": {"instance_type": "ml.c7g.large"}}, "has ARM processors"),
    ],
)
def test_what_would_fail_later_fails_now(make_plan: MakePlan, of: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(of=of)


def test_the_objective_must_be_a_metric_of_the_script(make_plan: MakePlan, pipeline: Pipeline) -> None:
    tuning = {**pipeline.tuning.model_dump(), "objective": {"metric": "valid:f1", "type": "Maximize"}}
    with pytest.raises(PlanError, match="the training script has no metric 'valid:f1'"):
        make_plan(of={"tuning": tuning})


def test_a_role_may_be_an_arn(make_plan: MakePlan) -> None:
    arn = "arn:aws:iam::123456789012:role/other"
    assert make_plan(of={"role": arn})["training"]["RoleArn"] == arn


@pytest.mark.parametrize("debugger", ["service", "in_job", "off"])
def test_no_hyperparameter_means_anything_to_the_shell_that_aws_puts_it_into(
    make_plan: MakePlan, debugger: str
) -> None:
    plan = make_plan(of={"debugger": debugger})
    assert plan["tuning"] is not None
    sent = {
        **plan["training"]["HyperParameters"],
        **plan["tuning"]["TrainingJobDefinition"]["StaticHyperParameters"],
    }
    assert [value for value in sent.values() if not re.fullmatch(r"[A-Za-z0-9_.,:=+/@%-]+", value)] == []
