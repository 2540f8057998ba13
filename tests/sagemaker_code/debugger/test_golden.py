"""Our profiler rules against what AWS's service published for the same jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from debugger.profiler import aws_reports
from debugger.profiler.aws_reports import compare_job, job_folders
from debugger.profiler.rules import evaluate, read_evidence

from tests.sagemaker_code.debugger.samples_support import golden_folder

RULE_FILES = 11


def test_every_field_of_every_job_is_awss() -> None:
    folders = job_folders(golden_folder() / "jobs")
    assert len(folders) >= 3
    for folder in folders:
        outcome = compare_job(folder)
        assert outcome.differ == []
        assert outcome.fields >= 40
        assert all(": " in line for line in outcome.skipped)


def test_the_command_ends_with_the_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert aws_reports.main([str(golden_folder())]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.endswith(" fields, 0 differ")


def test_a_changed_expectation_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = golden_folder() / "jobs" / "g4dn.xlarge"
    job = tmp_path / "changed"
    (job / "expected").mkdir(parents=True)
    (job / "system_metrics.jsonl").symlink_to(source / "system_metrics.jsonl")
    expected = json.loads((source / "expected" / "LowGPUUtilization.json").read_text())
    expected["RuleTriggered"] += 1
    (job / "expected" / "LowGPUUtilization.json").write_text(json.dumps(expected))
    assert aws_reports.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "changed/LowGPUUtilization.RuleTriggered: AWS 3, ours 2" in printed
    assert printed.strip().endswith(" 1 differ")


def test_the_instants_of_a_gpu_job_are_counted_as_the_service_does() -> None:
    job = golden_folder() / "jobs" / "g4dn.xlarge"
    expected = json.loads((job / "expected" / "CPUBottleneck.json").read_text())
    ours = evaluate(read_evidence(job / "system_metrics.jsonl"))["CPUBottleneck"]
    assert ours.datapoints == expected["Datapoints"]


def shape(document: Any) -> Any:
    """Keys without those that are data (nodes, GPUs, processes, operators, phases, time stamps)."""
    if not isinstance(document, dict):
        return type(document).__name__ if isinstance(document, str | bool | list) else "number"
    return {key: shape(value) for key, value in document.items()}


def test_report_files_have_awss_members() -> None:
    published = list((golden_folder() / "reports").glob("*/*.json"))
    assert len(published) >= RULE_FILES
    ours = evaluate(read_evidence(golden_folder() / "jobs" / "g4dn.xlarge" / "system_metrics.jsonl"))
    for path in published:
        document = json.loads(path.read_text())
        mine = ours[path.stem].document()
        assert shape({**document, "Details": 0}) == shape({**mine, "Details": 0}), path.stem
        assert document["RuleParameters"] == mine["RuleParameters"], path.stem
