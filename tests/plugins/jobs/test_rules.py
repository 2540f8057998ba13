"""What rules say, read from SageMaker's answers and from a job's own output, and judged by policy."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from retraining.aws import Aws
from retraining.jobs.rules import RuleState, debugger_result, parse_evaluation, show_changes, table
from retraining.pipeline import Pipeline

from tests.dags.airflow_home import connected_runtime
from tests.local_sagemaker.runtime_process import RuntimeProcess

JOB = "dog-breed-2611220640-3fa9"
OUTPUT = "s3://bucket/out"
TRAINING = {"job": JOB, "Training": {"OutputDataConfig": {"S3OutputPath": OUTPUT}}}
FOUND = (
    "RuleEvaluationConditionMet: Evaluation of the rule Overfit at step 40 "
    "resulted in the condition being met\n"
    "the validation loss is 1.30 times the training loss. Try: train fewer epochs"
)


def evaluation(rule: str, status: str, details: str = "") -> dict[str, Any]:
    entry = {
        "RuleConfigurationName": rule,
        "RuleEvaluationStatus": status,
        "LastModifiedTime": datetime(2026, 11, 22, tzinfo=UTC),
    }
    return {**entry, "StatusDetails": details} if details else entry


def pipeline(**members: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "dogs",
            "tuning": {"search_space": {"lr": {"type": "continuous", "min": 0.01, "max": 0.1}}},
            "hyperparameters": {"lr": 0.05},
            "rules": {
                "VanishingGradient": {"policy": "fail"},
                "Overfit": {"policy": "warn"},
                "DeadRelu": {"policy": "ignore"},
            },
            **members,
        }
    )


@dataclass
class Answers:
    """An Aws whose SageMaker gives prepared answers and whose S3 is the local SageMaker's."""

    descriptions: list[dict[str, Any]]
    waits: list[float] = field(default_factory=list)

    def aws(self) -> Aws:
        aws = Aws()
        s3 = connected_runtime().client("s3")
        sagemaker = boto3.client("sagemaker", region_name="us-east-1")
        stubber = Stubber(sagemaker)
        for members in self.descriptions:
            answer = {
                "TrainingJobName": JOB,
                "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{JOB}",
                "ModelArtifacts": {"S3ModelArtifacts": f"{OUTPUT}/model.tar.gz"},
                "TrainingJobStatus": "Completed",
                "SecondaryStatus": "Completed",
                "AlgorithmSpecification": {"TrainingInputMode": "File"},
                "ResourceConfig": {"VolumeSizeInGB": 1},
                "StoppingCondition": {},
                "CreationTime": datetime(2026, 11, 22, tzinfo=UTC),
                **members,
            }
            stubber.add_response("describe_training_job", answer, {"TrainingJobName": JOB})
        stubber.activate()
        vars(aws).update(s3=s3, sagemaker=sagemaker)
        return aws


def test_a_finding_is_read_from_the_platform_s_text() -> None:
    state = parse_evaluation(evaluation("Overfit", "IssuesFound", FOUND))
    assert (state.step, state.finding) == (40, "the validation loss is 1.30 times the training loss.")
    assert state.advice == "train fewer epochs"
    assert state.line == (
        "[Debugger] Overfit: IssuesFound at step 40 | the validation loss is 1.30 times the training loss. "
        "| try: train fewer epochs"
    )


def test_aws_s_own_text_has_a_step_and_no_more() -> None:
    state = parse_evaluation(evaluation("Overfit", "IssuesFound", FOUND.partition("\n")[0]))
    assert (state.step, state.finding, state.advice) == (40, "", "")
    assert "at step 40 | RuleEvaluationConditionMet" in state.line


def test_nothing_to_look_at_is_neither_stopped_nor_without_issues() -> None:
    state = parse_evaluation(evaluation("DeadRelu", "Stopped", "NothingToLookAt: no ReLU outputs were saved"))
    assert state.status == "NothingToLookAt"
    assert state.details == "no ReLU outputs were saved"


def test_only_changes_are_shown_and_findings_stand_out() -> None:
    shown: list[tuple[int, str]] = []
    running = RuleState("Overfit", "InProgress")
    found = parse_evaluation(evaluation("Overfit", "IssuesFound", FOUND))
    broken = RuleState("DeadRelu", "Error", details="no such parameter")

    def emit(level: int, line: str) -> None:
        shown.append((level, line))

    before = show_changes([running], {}, emit)
    before = show_changes([running], before, emit)
    show_changes([found, broken], before, emit)

    assert [level for level, _ in shown] == [logging.INFO, logging.WARNING, logging.ERROR]


@pytest.fixture
def output_bucket(runtime: RuntimeProcess) -> Iterator[None]:
    """The bucket of OUTPUT, empty at first and gone after the test."""
    s3 = runtime.client("s3")
    s3.create_bucket(Bucket="bucket")
    yield
    for item in s3.list_objects_v2(Bucket="bucket").get("Contents", []):
        s3.delete_object(Bucket="bucket", Key=item["Key"])
    s3.delete_bucket(Bucket="bucket")


@pytest.mark.usefixtures("output_bucket")
def test_rules_are_waited_for_and_judged_by_policy() -> None:
    running = {"DebugRuleEvaluationStatuses": [evaluation("Overfit", "InProgress")]}
    ended = {
        "DebugRuleEvaluationStatuses": [
            evaluation("Overfit", "IssuesFound", FOUND),
            evaluation("VanishingGradient", "IssuesFound", FOUND.replace("Overfit", "VanishingGradient")),
            evaluation("DeadRelu", "IssuesFound", FOUND.replace("Overfit", "DeadRelu")),
            evaluation("AllZero", "Error", "InternalError: out of memory"),
            evaluation("ExplodingTensor", "NoIssuesFound"),
        ],
        "ProfilerRuleEvaluationStatuses": [evaluation("ProfilerReport", "NoIssuesFound")],
    }
    answers = Answers([running, running, ended])
    aws = answers.aws()
    page = f"out/{JOB}/rule-output/ProfilerReport/profiler-output/profiler-report.html"
    aws.s3.put_object(Bucket="bucket", Key=page, Body=b"<html>")

    result = debugger_result(pipeline(), TRAINING, aws, pause=answers.waits.append)

    assert answers.waits == [2.0, 3.0]
    assert {rule["rule"]: rule["verdict"] for rule in result["rules"]} == {
        "Overfit": "warning",
        "VanishingGradient": "blocks",
        "DeadRelu": "ignored",
        "AllZero": "unknown",
        "ExplodingTensor": "ok",
        "ProfilerReport": "ok",
    }
    assert result["blocking"] == ["VanishingGradient"]
    assert result["report"] == f"s3://bucket/{page}"
    assert "X-Amz-Signature" in result["report_url"] or "Signature" in result["report_url"]
    json.dumps(result)


@pytest.mark.usefixtures("output_bucket")
def test_rules_that_do_not_end_are_not_waited_for_for_ever() -> None:
    running = {"DebugRuleEvaluationStatuses": [evaluation("Overfit", "InProgress")]}
    result = debugger_result(pipeline(rules_wait_seconds=0), TRAINING, Answers([running]).aws())
    assert [rule["verdict"] for rule in result["rules"]] == ["unknown"]


@pytest.mark.usefixtures("output_bucket")
def test_rules_of_the_job_itself_are_read_from_its_output() -> None:
    aws = Answers([]).aws()
    files = {
        "debugger/rules/Overfit.json": json.dumps(
            {
                "RuleConfigurationName": "Overfit",
                "RuleEvaluationStatus": "IssuesFound",
                "StatusDetails": FOUND,
                "LastModifiedTime": 1.0,
            }
        ),
        "debugger/profiler-report.html": "<html>",
        "metrics.json": "{}",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    aws.s3.put_object(Bucket="bucket", Key=f"out/{JOB}/output/output.tar.gz", Body=buffer.getvalue())

    result = debugger_result(pipeline(debugger="in_job"), TRAINING, aws)

    verdicts = {rule["rule"]: (rule["status"], rule["verdict"]) for rule in result["rules"]}
    assert verdicts["Overfit"] == ("IssuesFound", "warning")
    assert verdicts["VanishingGradient"] == ("Error", "unknown")
    bucket, key = result["report"].removeprefix("s3://").split("/", 1)
    assert aws.s3.get_object(Bucket=bucket, Key=key)["ContentType"].startswith("text/html")


@pytest.mark.usefixtures("output_bucket")
def test_a_job_without_output_says_so_for_every_rule() -> None:
    result = debugger_result(pipeline(debugger="in_job"), TRAINING, Answers([]).aws())
    assert {rule["status"] for rule in result["rules"]} == {"Error"}
    assert result["blocking"] == []


@pytest.mark.parametrize("rules", [[], None])
def test_no_rules_are_said_to_be_none(rules: Any) -> None:
    assert "No Debugger rules" in table(rules or [])
