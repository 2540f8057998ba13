"""Debugger rules and the profiler beside training jobs: real tensors, real evaluations, through boto3."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.conftest import MakeRuntime
from tests.local_sagemaker.processing_support import LOG_GROUP
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.local_sagemaker.training_support import ENDED, JobRunner, read_log

RULES_IMAGE = "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest"
ARN = re.compile(r"arn:aws:sagemaker:us-east-1:123456789012:processing-job/[a-z0-9-]+-[0-9a-f]{8}")

CODE = Path(__file__).parents[2] / "sagemaker_code"

# A single layer with gradients of a chosen size; runs on until a file appears or the steps are done.
SCRIPT = f"""
import os, pathlib, sys, time
sys.path.append({str(CODE)!r})
import debugger  # makes smdebug importable
import smdebug.pytorch as smd, torch
model = torch.nn.Linear(4, 1)
loss_function = torch.nn.MSELoss()
hook = smd.Hook.create_from_json_file()
hook.register_module(model)
hook.register_loss(loss_function)
scale = float(os.environ.get("SCALE", "1"))
for step in range(int(os.environ.get("STEPS", "30"))):
    output = loss_function(model(torch.randn(8, 4)) * scale, torch.randn(8, 1))
    model.zero_grad()
    output.backward()
    print(f"step={{step}}", flush=True)
    time.sleep(float(os.environ.get("PAUSE", "0")))
"""


def rule(name: str, configuration: str | None = None, **parameters: str) -> dict[str, Any]:
    return {
        "RuleConfigurationName": configuration or name,
        "RuleEvaluatorImage": RULES_IMAGE,
        "RuleParameters": {"rule_to_invoke": name, **parameters},
    }


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> JobRunner:
    return JobRunner(runtime, bucket, role_arn)


def debugged(jobs: JobRunner, rules: list[dict[str, Any]], **members: Any) -> dict[str, Any]:
    """Members of a request whose hook saves gradients and losses at every step."""
    return {
        "DebugHookConfig": {
            "S3OutputPath": f"s3://{jobs.bucket}/out",
            "HookParameters": {"save_interval": "1"},
            "CollectionConfigurations": [{"CollectionName": "gradients"}, {"CollectionName": "losses"}],
        },
        "DebugRuleConfigurations": rules,
        **members,
    }


def statuses(
    job: Mapping[str, Any], member: str = "DebugRuleEvaluationStatuses"
) -> dict[str, dict[str, Any]]:
    return {status["RuleConfigurationName"]: status for status in job.get(member, [])}


def wait_for_rules(jobs: JobRunner, name: str) -> dict[str, Any]:
    """The description of the job once it and all its rules have ended."""

    def ended() -> dict[str, Any] | None:
        job = jobs.describe(name)
        rules = [*statuses(job).values(), *statuses(job, "ProfilerRuleEvaluationStatuses").values()]
        running = any(one["RuleEvaluationStatus"] == "InProgress" for one in rules)
        return None if running or job["TrainingJobStatus"] not in ENDED else job

    return wait_for(ended, 180, f"the end of the rules of {name}", every=0.3)


def rule_log(jobs: JobRunner, status: Mapping[str, Any]) -> list[str]:
    """The log of the processing job that a rule's evaluation names."""
    return read_log(jobs.logs, LOG_GROUP, f"{status['RuleEvaluationJobArn'].rpartition('/')[2]}/algo-1-")


def test_rules_report_findings_and_no_findings(jobs: JobRunner) -> None:
    rules = [
        rule("VanishingGradient"),
        rule("ExplodingTensor"),
        rule("DeadRelu"),
        rule("VanishingGradient", "Misspelt", thresold="1"),
    ]
    jobs.create("rules-vanishing", SCRIPT, Environment={"SCALE": "1e-9"}, **debugged(jobs, rules))
    started = jobs.describe("rules-vanishing")
    assert {one["RuleEvaluationStatus"] for one in statuses(started).values()} == {"InProgress"}

    job = wait_for_rules(jobs, "rules-vanishing")

    assert job["TrainingJobStatus"] == "Completed"
    found = statuses(job)
    assert found["VanishingGradient"]["RuleEvaluationStatus"] == "IssuesFound", found["VanishingGradient"]
    details = found["VanishingGradient"]["StatusDetails"]
    assert re.match(
        r"RuleEvaluationConditionMet: Evaluation of the rule VanishingGradient at step \d+ resulted in the "
        r"condition being met",
        details,
    )
    assert found["ExplodingTensor"]["RuleEvaluationStatus"] == "NoIssuesFound"
    assert found["DeadRelu"]["RuleEvaluationStatus"] == "Stopped"
    assert "InsufficientData" in found["DeadRelu"]["StatusDetails"]
    assert found["Misspelt"]["RuleEvaluationStatus"] == "Error"
    assert "thresold" in found["Misspelt"]["StatusDetails"]
    assert all(ARN.fullmatch(one["RuleEvaluationJobArn"]) for one in found.values())
    log = rule_log(jobs, found["VanishingGradient"])
    assert log[0].startswith("[debugger] rule=VanishingGradient status=InProgress")
    assert any(line.startswith("[debugger] rule=VanishingGradient status=IssuesFound") for line in log)
    assert not any("rule=ExplodingTensor" in line for line in log)
    assert any("thresold" in line for line in rule_log(jobs, found["Misspelt"]))


def test_the_profiler_reports_to_s3(jobs: JobRunner) -> None:
    jobs.create(
        "rules-profiled",
        SCRIPT,
        Environment={"PAUSE": "0.05", "STEPS": "60"},
        ProfilerRuleConfigurations=[rule("ProfilerReport")],
        **debugged(
            jobs,
            [],
            ProfilerConfig={
                "S3OutputPath": f"s3://{jobs.bucket}/out",
                "ProfilingIntervalInMilliseconds": 500,
            },
        ),
    )

    job = wait_for_rules(jobs, "rules-profiled")

    assert job["TrainingJobStatus"] == "Completed"
    assert statuses(job, "ProfilerRuleEvaluationStatuses")["ProfilerReport"]["RuleEvaluationStatus"] in {
        "NoIssuesFound",
        "IssuesFound",
    }
    assert any(
        re.fullmatch(r"\d{10}/\d+\.algo-1\.json", key)
        for key in jobs.keys("out/rules-profiled/profiler-output/system/incremental/")
    )
    report = jobs.keys("out/rules-profiled/rule-output/ProfilerReport/profiler-output/")
    assert "profiler-report.html" in report
    usage = jobs.object(
        "out/rules-profiled/rule-output/ProfilerReport/profiler-output/profiler-reports/"
        "OverallSystemUsage.json"
    )
    assert json.loads(usage)["Datapoints"] > 0


def test_rules_can_be_added_to_a_job_that_runs(jobs: JobRunner) -> None:
    report = rule("ProfilerReport")
    profiler = {"S3OutputPath": f"s3://{jobs.bucket}/out", "ProfilingIntervalInMilliseconds": 500}
    members = debugged(jobs, [rule("DeadRelu")], ProfilerConfig=profiler)
    jobs.create("rules-added", SCRIPT, Environment={"PAUSE": "0.1", "STEPS": "80"}, **members)
    jobs.wait_for_line("rules-added", "step=3")
    with pytest.raises(ClientError, match="DeadRelu"):
        jobs.sagemaker.update_training_job(
            TrainingJobName="rules-added", ProfilerRuleConfigurations=[rule("ProfilerReport", "DeadRelu")]
        )

    jobs.sagemaker.update_training_job(TrainingJobName="rules-added", ProfilerRuleConfigurations=[report])

    member = "ProfilerRuleEvaluationStatuses"
    added = statuses(jobs.describe("rules-added"), member)["ProfilerReport"]
    assert added["RuleEvaluationStatus"] == "InProgress"
    assert ARN.fullmatch(added["RuleEvaluationJobArn"])
    job = wait_for_rules(jobs, "rules-added")
    assert job["TrainingJobStatus"] == "Completed"
    assert statuses(job)["DeadRelu"]["RuleEvaluationStatus"] == "Stopped"
    assert statuses(job, member)["ProfilerReport"]["RuleEvaluationStatus"] in {"NoIssuesFound", "IssuesFound"}
    assert "profiler-report.html" in jobs.keys("out/rules-added/rule-output/ProfilerReport/profiler-output/")


def test_a_job_without_rules_can_get_one(jobs: JobRunner) -> None:
    jobs.create("rules-late", SCRIPT, Environment={"PAUSE": "0.1", "STEPS": "40"}, **debugged(jobs, []))
    jobs.wait_for_line("rules-late", "step=3")

    jobs.sagemaker.update_training_job(
        TrainingJobName="rules-late",
        ProfilerConfig={"S3OutputPath": f"s3://{jobs.bucket}/out"},
        ProfilerRuleConfigurations=[rule("OverallSystemUsage")],
    )

    job = wait_for_rules(jobs, "rules-late")
    found = statuses(job, "ProfilerRuleEvaluationStatuses")["OverallSystemUsage"]
    assert found["RuleEvaluationStatus"] == "NoIssuesFound", found


def test_deleting_a_job_ends_its_rules(jobs: JobRunner) -> None:
    jobs.create("rules-deleted", SCRIPT, **debugged(jobs, [rule("ExplodingTensor")]))
    jobs.wait("rules-deleted")
    jobs.sagemaker.delete_training_job(TrainingJobName="rules-deleted")
    folder = str(jobs.runtime.root / "training-job" / "rules-deleted")

    def running() -> list[list[str]]:
        commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return [command for command in commands if any(folder in word for word in command)]

    wait_for(lambda: not running(), 20, "the evaluator to end")
    assert not Path(folder).exists()


def test_the_action_of_a_rule_stops_a_hopeless_job(jobs: JobRunner) -> None:
    action = json.dumps([{"name": "stoptraining", "parameters": {"training_job_prefix": "rules-hopeless"}}])
    rules = [rule("VanishingGradient", action_json=action)]
    jobs.create(
        "rules-hopeless",
        SCRIPT,
        Environment={"SCALE": "1e-9", "STEPS": "100000", "PAUSE": "0.05"},
        **debugged(jobs, rules),
    )

    job = wait_for_rules(jobs, "rules-hopeless")

    assert job["TrainingJobStatus"] == "Stopped"
    assert statuses(job)["VanishingGradient"]["RuleEvaluationStatus"] == "IssuesFound"


def test_rules_continue_when_the_runtime_is_killed(make_runtime: MakeRuntime, role_arn: str) -> None:
    process = make_runtime()
    process.client("s3").create_bucket(Bucket="rules-restart")
    jobs = JobRunner(process, "rules-restart", role_arn)
    members = debugged(jobs, [rule("ExplodingTensor")])
    jobs.create("rules-restart", SCRIPT, Environment={"PAUSE": "0.1", "STEPS": "80"}, **members)
    jobs.wait_for_line("rules-restart", "step=3")

    process.kill()
    process.start()

    job = wait_for_rules(jobs, "rules-restart")
    assert job["TrainingJobStatus"] == "Completed"
    found = statuses(job)["ExplodingTensor"]
    assert found["RuleEvaluationStatus"] == "NoIssuesFound"
    log = rule_log(jobs, found)
    assert [line.partition("|")[0].strip() for line in log if line.startswith("[debugger]")] == [
        "[debugger] rule=ExplodingTensor status=InProgress",
        "[debugger] rule=ExplodingTensor status=NoIssuesFound",
    ]

    process.kill()
    process.start()

    assert rule_log(jobs, found) == log


def test_a_job_that_fails_before_its_script_ends_its_rules(jobs: JobRunner) -> None:
    jobs.create("rules-broken", "raise SystemExit('no')", **debugged(jobs, [rule("ExplodingTensor")]))

    job = wait_for_rules(jobs, "rules-broken")

    assert job["TrainingJobStatus"] == "Failed"
    assert statuses(job)["ExplodingTensor"]["RuleEvaluationStatus"] == "Stopped"


def test_an_unknown_evaluator_image_is_refused(jobs: JobRunner) -> None:
    unknown = {**rule("Overfit"), "RuleEvaluatorImage": "1.dkr.ecr.us-east-1.amazonaws.com/other:1"}
    with pytest.raises(ClientError, match="other:1"):
        jobs.create("rules-image", SCRIPT, **debugged(jobs, [unknown]))
