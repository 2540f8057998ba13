"""What rules found, read from SageMaker's responses and from a job's output, and judged by policy."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from retraining.aws.clients import Aws
from retraining.config.pipeline import Pipeline
from retraining.jobs.debugger_rules import (
    RuleState,
    debugger_result,
    parse_evaluation,
    rule_table,
)
from retraining.jobs.followers import RulesFollower, changed_rules
from retraining.jobs.following import follow
from retraining.jobs.logs import archived
from retraining.runs.results import RuleResult, TrainingResult

from tests.dags.airflow_home import connected_runtime
from tests.local_sagemaker.runtime_process import RuntimeProcess

JOB = "dog-breed-2611220640-3fa9"
OUTPUT = "s3://bucket/out"
TRAINING: TrainingResult = {
    "job": JOB,
    "arn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{JOB}",
    "status": "Completed",
    "seconds": 100.0,
    "billable_seconds": 100,
    "metrics": {},
    "hyperparameters": {},
    "model_artifact": f"{OUTPUT}/{JOB}/output/model.tar.gz",
    "output": OUTPUT,
    "Training": {},
}
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
class Responses:
    """An Aws whose SageMaker returns prepared responses and whose S3 is the local SageMaker's."""

    descriptions: list[dict[str, Any]]

    def aws(self) -> Aws:
        aws = Aws()
        s3 = connected_runtime().client("s3")
        sagemaker = boto3.client("sagemaker", region_name="us-east-1")
        stubber = Stubber(sagemaker)
        for members in self.descriptions:
            response = {
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
            stubber.add_response("describe_training_job", response, {"TrainingJobName": JOB})
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


def test_aws_s_own_text_has_only_a_step() -> None:
    state = parse_evaluation(evaluation("Overfit", "IssuesFound", FOUND.partition("\n")[0]))
    assert (state.step, state.finding, state.advice) == (40, "", "")
    assert "at step 40 | RuleEvaluationConditionMet" in state.line


def test_insufficient_data_is_neither_stopped_nor_without_issues() -> None:
    state = parse_evaluation(
        evaluation("DeadRelu", "Stopped", "InsufficientData: no ReLU outputs were saved")
    )
    assert state.status == "InsufficientData"
    assert state.details == "no ReLU outputs were saved"


def test_only_changes_are_shown_and_findings_stand_out() -> None:
    shown: dict[str, str] = {}
    running = RuleState("Overfit", "InProgress")
    found = parse_evaluation(evaluation("Overfit", "IssuesFound", FOUND))
    broken = RuleState("DeadRelu", "Error", details="no such parameter")

    lines = [
        line for states in ([running], [running], [found, broken]) for line in changed_rules(states, shown)
    ]

    assert [line.level for line in lines] == [logging.INFO, logging.WARNING, logging.ERROR]


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
def test_rules_are_waited_for_and_judged_by_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("retraining.jobs.following.time.sleep", pauses.append)
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
    aws = Responses([running, running, ended, ended]).aws()
    page = f"out/{JOB}/rule-output/ProfilerReport/profiler-output/profiler-report.html"
    aws.s3.put_object(Bucket="bucket", Key=page, Body=b"<html>")

    later = datetime.now(UTC) + timedelta(hours=1)
    rules = RulesFollower(aws, {"name": JOB, "until": later.isoformat()})
    assert follow(rules, later, lambda _level, _text: None) == {"outcome": {}}
    result = debugger_result(pipeline(), TRAINING, aws)

    assert pauses == pytest.approx([2.0, 2.0], abs=0.1)
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
    assert result["report_url"]
    assert "Signature" in result["report_url"]
    json.dumps(result)


@pytest.mark.usefixtures("output_bucket")
def test_waiting_for_rules_has_a_limit() -> None:
    running = {"DebugRuleEvaluationStatuses": [evaluation("Overfit", "InProgress")]}
    aws, now = Responses([running, running]).aws(), datetime.now(UTC)
    rules = RulesFollower(aws, {"name": JOB, "until": now.isoformat()})
    assert [line.level for line in rules.poll()] == [logging.INFO, logging.ERROR]
    assert rules.ended
    result = debugger_result(pipeline(), TRAINING, aws)
    assert [rule["verdict"] for rule in result["rules"]] == ["unknown"]


@pytest.mark.usefixtures("output_bucket")
def test_rules_of_the_job_itself_are_read_from_its_output() -> None:
    aws = Responses([]).aws()
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
    assert result["report"]
    bucket, key = result["report"].removeprefix("s3://").split("/", 1)
    assert aws.s3.get_object(Bucket=bucket, Key=key)["ContentType"].startswith("text/html")


def test_only_plain_files_of_a_usual_size_are_read_from_an_archive() -> None:
    def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, size
        return info.tobuf(tarfile.GNU_FORMAT)

    links = member("rules/loop", tarfile.SYMTYPE, "rules/loop") + member("rules/a", tarfile.LNKTYPE, "no")
    assert list(archived(gzip.compress(links + member("rules/b") + bytes(1024)), "rules/")) == [
        ("rules/b", b"")
    ]
    for bomb in (
        member("rules/c", size=2**40),
        member("rules/c", size=-512),
        member("x", tarfile.XHDTYPE, size=2**40),
        member("x", tarfile.XHDTYPE) * 5000,
    ):
        with pytest.raises(tarfile.TarError):
            list(archived(gzip.compress(bomb + bytes(1024)), "rules/"))
    with pytest.raises(tarfile.TarError):
        list(archived(gzip.compress(links + bytes(1024))[:-20], "rules/"))


@pytest.mark.usefixtures("output_bucket")
def test_a_job_without_output_says_so_for_every_rule() -> None:
    result = debugger_result(pipeline(debugger="in_job"), TRAINING, Responses([]).aws())
    assert {rule["status"] for rule in result["rules"]} == {"Error"}
    assert result["blocking"] == []


def test_no_rules_are_said_to_be_none() -> None:
    assert "No Debugger rules" in rule_table([])


def test_the_table_fits_the_log_pane_with_all_of_its_advice() -> None:
    advice = "lower the learning rate, or start from pretrained weights; look at the first layers' gradients"
    rule: RuleResult = {
        "rule": "CPUBottleneckOfALongName",
        "status": "InsufficientData",
        "policy": "warn",
        "verdict": "unknown",
        "step": 123456,
        "finding": "the mean of the gradients of features.0.weight is 1e-9, below 1e-7, at 5 steps in a row.",
        "advice": advice,
        "details": "",
    }
    lines = rule_table([rule]).splitlines()
    assert max(len(line) for line in lines) <= 100
    cells = [line.strip("│ ").rpartition("│")[2].split() for line in lines if line.startswith("│")]
    assert f"Try: {advice}" in " ".join(word for cell in cells for word in cell)
    assert all(word in "\n".join(lines) for word in (rule["rule"], rule["status"], "123456", "unknown"))
