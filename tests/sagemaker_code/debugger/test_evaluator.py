"""The evaluator: outcomes of runs that are missing, damaged, foreign or over at once, and of rules that go
wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from debugger.evaluator import Evaluation, EvaluatorSettings
from debugger.profiler_watch import ProfilerRule
from debugger.rules import MODULES
from debugger.rules.losses import Overfit
from debugger.statuses import Status, StatusBoard

from tests.sagemaker_code.debugger.samples_support import golden_folder, tick, write_lines
from tests.sagemaker_code.debugger.training_support import Data, Net, Run, evaluate, healthy_data, rule, train

PACKAGES = Path(__file__).parents[3] / "sagemaker_code"
STOP = '[{\\"name\\": \\"stoptraining\\", \\"training_job_prefix\\": \\"job\\"}]'
"""As the SageMaker SDK serialises its StopTraining action."""


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short healthy run."""
    small = healthy_data()
    data = Data((small.train[0][:160], small.train[1][:160]), (small.valid[0][:64], small.valid[1][:64]))
    with pytest.MonkeyPatch.context() as patch:
        return train(Run(data, epochs=4), tmp_path_factory.mktemp("run") / "tensors", patch)


def test_no_tensors_is_said_and_is_not_no_issues(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    ended.touch()
    statuses = evaluate(tmp_path / "missing", [rule("Overfit")], tmp_path / "out", ended_file=ended)
    assert statuses["Overfit"]["RuleEvaluationStatus"] == "Stopped"
    assert statuses["Overfit"]["Outcome"] == "InsufficientData"
    assert "saved no tensors under" in statuses["Overfit"]["StatusDetails"]


def test_every_rule_has_a_status_whatever_it_is_called(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    ended.touch()
    names = ["a/b", "a_b", "..", ".a", "../../escaped", "x" * 256, "x" * 255]
    rules = [{**rule("Overfit"), "RuleConfigurationName": name} for name in names]
    statuses = evaluate(tmp_path / "missing", rules, tmp_path / "out", ended_file=ended)
    assert sorted(statuses) == sorted(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended", "out"]


def test_waiting_ends_without_an_end_marker(tmp_path: Path) -> None:
    started = time.monotonic()
    statuses = evaluate(tmp_path / "missing", [rule("Overfit")], tmp_path / "out", idle_timeout=0.5)
    assert time.monotonic() - started < 20
    assert "training did not end" in statuses["Overfit"]["StatusDetails"]


def test_a_collection_that_was_never_saved_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = train(
        Run(healthy_data(), epochs=1, collections={"losses": {}}), tmp_path / "tensors", monkeypatch
    )
    names = ["VanishingGradient", "DeadRelu", "WeightUpdateRatio", "ClassImbalance", "CheckInputImages"]
    statuses = evaluate(saved, [rule(name) for name in names], tmp_path / "out")
    for name in names:
        assert statuses[name]["Outcome"] == "InsufficientData", name
        assert "The run saved: CrossEntropyLoss_output_0" in statuses[name]["StatusDetails"]
    assert "gradients" in statuses["VanishingGradient"]["StatusDetails"]


def test_a_run_that_shows_step_0_only_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = train(Run(healthy_data(), epochs=1, interval=500), tmp_path / "tensors", monkeypatch)
    names = ["VanishingGradient", "Overfit", "Overtraining", "PoorWeightInitialization", "LossNotDecreasing"]
    statuses = evaluate(saved, [rule(name) for name in names], tmp_path / "out")
    assert {one["Outcome"] for one in statuses.values()} == {"InsufficientData"}
    assert "save_interval is too long" in statuses["VanishingGradient"]["StatusDetails"]


def test_unknown_rules_and_bad_parameters_are_errors_and_the_others_go_on(
    tmp_path: Path, tensors: Path
) -> None:
    rules = [
        rule("NoSuchRule"),
        {"RuleConfigurationName": "Unnamed", "RuleParameters": {}},
        {**rule("Overfit", patience="many"), "RuleConfigurationName": "BadValue"},
        {**rule("Overfit", patients="1"), "RuleConfigurationName": "BadName"},
        {**rule("DeadRelu", tensor_regex="("), "RuleConfigurationName": "BadPattern"},
        rule("ExplodingTensor"),
    ]
    statuses = evaluate(tensors, rules, tmp_path / "out")
    named = {
        "NoSuchRule": "NoSuchRule",
        "Unnamed": "there is no rule ''",
        "BadValue": "patience cannot be 'many'",
        "BadName": "'patients'",
        "BadPattern": "tensor_regex",
    }
    for name, text in named.items():
        assert statuses[name]["RuleEvaluationStatus"] == "Error"
        assert text in statuses[name]["StatusDetails"]
    assert statuses["ExplodingTensor"]["RuleEvaluationStatus"] == "NoIssuesFound"


def test_a_rule_that_raises_is_an_error_and_the_others_go_on(
    tmp_path: Path, tensors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Overfit, step: int) -> None:
        raise ZeroDivisionError(f"at step {step}")

    monkeypatch.setattr(Overfit, "judge", broken)
    statuses = evaluate(tensors, [rule("Overfit"), rule("ExplodingTensor")], tmp_path / "out")
    assert statuses["Overfit"]["RuleEvaluationStatus"] == "Error"
    assert "ZeroDivisionError: at step 0" in statuses["Overfit"]["StatusDetails"]
    assert statuses["ExplodingTensor"]["RuleEvaluationStatus"] == "NoIssuesFound"


def test_tensors_of_another_job_are_an_error(tmp_path: Path, tensors: Path) -> None:
    statuses = evaluate(tensors, [rule("Overfit")], tmp_path / "out", started=time.time() + 60)
    assert statuses["Overfit"]["RuleEvaluationStatus"] == "Error"
    assert "another job" in statuses["Overfit"]["StatusDetails"]


@pytest.mark.parametrize("damage", ["events", "index", "collections"])
def test_a_half_written_folder_ends_with_a_reason(tmp_path: Path, tensors: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tensors, copy)
    for path in (copy / damage).rglob("*"):
        if path.is_file():
            os.truncate(path, 40)
    rules = [rule("VanishingGradient"), rule("LossNotDecreasing"), rule("ExplodingTensor")]
    statuses = evaluate(copy, rules, tmp_path / "out")
    for status in statuses.values():
        assert status["Outcome"] in ("Error", "InsufficientData")
        assert "read" in status["StatusDetails"] or "incomplete" in status["StatusDetails"]


def test_rules_follow_a_run_while_it_is_written(tmp_path: Path, tensors: Path) -> None:
    growing, ended = tmp_path / "growing", tmp_path / "ended"
    board = StatusBoard(tmp_path / "out")
    rules = [rule("LossNotDecreasing"), rule("StalledTrainingRule", threshold="30")]
    evaluation = Evaluation(rules, EvaluatorSettings(str(growing), ended, poll=0.05), board)
    runner = threading.Thread(target=evaluation.run)
    runner.start()
    status = tmp_path / "out" / "LossNotDecreasing.json"
    while not status.exists():
        assert runner.is_alive()
        runner.join(0.05)
    for part in ("collections", "events", "index"):
        for path in sorted((tensors / part).rglob("*")):
            target = growing / path.relative_to(tensors)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                shutil.copy(path, target)
    assert json.loads(status.read_text())["RuleEvaluationStatus"] == "InProgress"
    ended.touch()
    runner.join(60)
    assert not runner.is_alive()
    document = json.loads(status.read_text())
    assert document["RuleEvaluationStatus"] == "NoIssuesFound"


def test_a_stall_is_found_while_the_job_still_runs(tmp_path: Path) -> None:
    rules = [rule("StalledTrainingRule", threshold="0.3", stop_training_on_fire="True")]
    statuses = evaluate(tmp_path / "missing", rules, tmp_path / "out")
    assert statuses["StalledTrainingRule"]["RuleEvaluationStatus"] == "IssuesFound"
    assert "no tensor has been saved" in statuses["StalledTrainingRule"]["Finding"]
    assert statuses["StalledTrainingRule"]["ActionRequested"] == "stop_training"


def test_stop_training_is_requested_only_by_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(healthy_data(), Net(), epochs=1, lr=1e6, collections={"losses": {}, "gradients": {}})
    saved = train(run, tmp_path / "tensors", monkeypatch)
    rules = [rule("ExplodingTensor", action_json=STOP), rule("VanishingGradient", action_json=STOP)]
    statuses = evaluate(saved, rules, tmp_path / "out")
    assert statuses["ExplodingTensor"]["ActionRequested"] == "stop_training"
    assert "ActionRequested" not in statuses["VanishingGradient"]


def command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``python -m debugger`` as a platform does."""
    return subprocess.run(
        [sys.executable, "-m", "debugger", *arguments],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_line_evaluates_every_rule_and_reports_the_profile(tmp_path: Path, tensors: Path) -> None:
    samples = write_lines(
        tmp_path / "profiler" / "system" / "incremental" / "2023111422" / "1700000040.algo-1.json",
        [one for number in range(20) for one in tick(number, cpus=[10, 30])],
    )
    file = tmp_path / "rules.json"
    file.write_text(json.dumps([*(rule(name) for name in MODULES), rule("ProfilerReport")]))
    arguments = [
        "evaluate",
        "--rules",
        str(file),
        "--tensors",
        str(tensors),
        "--output",
        str(tmp_path / "out"),
    ]
    arguments += [
        "--job",
        "a-job",
        "--profiler",
        str(samples.parents[3]),
        "--report",
        str(tmp_path / "report"),
    ]
    done = command(arguments)
    assert done.returncode == 0, done.stderr
    documents = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    assert len(documents) == len(MODULES) + 1
    assert all(one["RuleEvaluationStatus"] in ("NoIssuesFound", "Stopped") for one in documents)
    assert (tmp_path / "report" / "profiler-report.html").is_file()
    lines = done.stdout.splitlines()
    assert all(line.startswith("[debugger] rule=") and " status=" in line for line in lines)


def test_a_missing_rules_file_is_named(tmp_path: Path) -> None:
    done = command(
        ["evaluate", "--rules", str(tmp_path / "no.json"), "--tensors", "x", "--output", "y", "--job", "z"]
    )
    assert done.returncode == 2
    assert "no.json" in done.stderr


def test_profiler_rules_name_the_minute_as_aws_does(tmp_path: Path) -> None:
    samples = golden_folder() / "jobs" / "g4dn.xlarge"
    ended = tmp_path / "ended"
    ended.touch()
    statuses: dict[str, Any] = evaluate(
        tmp_path / "none",
        [
            rule("LowGPUUtilization"),
            rule("ProfilerReport"),
            rule("CPUBottleneck"),
            rule("BatchSize", windo="3"),
        ],
        tmp_path / "out",
        ended_file=ended,
        profiler=str(samples),
        report=str(tmp_path / "report"),
    )
    met = "RuleEvaluationConditionMet: Evaluation of the rule {} at step {} resulted in the condition being"
    assert statuses["LowGPUUtilization"]["StatusDetails"].startswith(met.format("LowGPUUtilization", 8))
    assert statuses["ProfilerReport"]["StatusDetails"].startswith(met.format("ProfilerReport", 10))
    assert statuses["CPUBottleneck"]["RuleEvaluationStatus"] == "NoIssuesFound"
    assert statuses["BatchSize"]["RuleEvaluationStatus"] == "Error"


def test_samples_that_cannot_be_read_now_are_read_at_the_next_poll(tmp_path: Path) -> None:
    unreadable = tmp_path / "samples" / "1700000040.algo-1.json"
    unreadable.mkdir(parents=True)
    status = Status("BatchSize", "BatchSize")
    board = StatusBoard(tmp_path / "out")
    watched = ProfilerRule("BatchSize", {}, status, board, str(unreadable.parent), None, _last=-1e9)
    watched.poll(ended=False)
    assert not status.ended()
    watched.finish()
    assert status.status == "Error"
