"""Rules and sampler beside a script in its own container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from debugger import hook_config, monitor
from debugger.hook_config import RunLength

SCRIPT = Path(__file__).with_name("beside_script.py")
ROOT = Path(__file__).parents[3]
LINE = re.compile(r"^\[debugger\] rule=\S+ status=\w+( step=\d+)?( outcome=\w+)?( \| .+)?$")


def run_script(output: Path, *arguments: str) -> list[str]:
    """Lines that the script printed."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(output), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "sagemaker_code"), str(ROOT)]),
            "SMDEBUG_LOG_LEVEL": "error",
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_statuses_come_to_the_log_and_with_the_report_to_the_output(tmp_path: Path) -> None:
    lines = run_script(tmp_path, "0.05", "3")
    assert lines[-1] == "trained 3 epochs, stopped=False"
    told = [line for line in lines if line.startswith("[debugger]")]
    assert all(LINE.match(line) for line in told)
    assert "[debugger] rule=Overfit status=InProgress" in told
    assert any(line.startswith("[debugger] rule=Overfit status=NoIssuesFound | ") for line in told)
    assert any("rule=NoSuchRule status=Error | there is no rule 'NoSuchRule'" in line for line in told)
    statuses = {
        path.stem: json.loads(path.read_text()) for path in (tmp_path / "debugger/rules").glob("[!.]*.json")
    }
    assert statuses["VanishingGradient"]["RuleEvaluationStatus"] == "NoIssuesFound"
    page = (tmp_path / "debugger" / "profiler-report.html").read_text()
    assert "90" in re.findall(r"<b>(\d+)</b>steps", page) or "135" in re.findall(r"<b>(\d+)</b>steps", page)
    usage = json.loads((tmp_path / "debugger" / "profiler-reports" / "OverallSystemUsage.json").read_text())
    assert usage["Datapoints"] > 0


def test_a_finding_of_a_stopping_rule_ends_the_training_early(tmp_path: Path) -> None:
    lines = run_script(tmp_path, "1e6", "400", "ExplodingTensor")
    ended = re.fullmatch(r"trained (\d+) epochs, stopped=True", lines[-1])
    assert ended
    assert int(ended[1]) < 400
    found = next(line for line in lines if "rule=ExplodingTensor status=IssuesFound" in line)
    assert found.endswith("| action: stop_training")
    assert "| try: lower lr" in found


def test_off_and_service_leave_everything_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMDEBUG_CONFIG_FILE_PATH", raising=False)
    run = RunLength(10, 2, 3)
    for mode in (monitor.OFF, monitor.SERVICE):
        with monitor.beside(monitor.MonitorSettings(mode, tmp_path, base_dir=tmp_path)) as watch:
            assert watch.hook_configuration(run) is None
            assert list(watch.steps.batches([1, 2])) == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_service_uses_the_platforms_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMDEBUG_CONFIG_FILE_PATH", raising=False)
    folder = tmp_path / "input" / "config"
    folder.mkdir(parents=True)
    given = {
        "LocalPath": "/opt/ml/output/tensors",
        "HookParameters": {"train.save_interval": "100", "eval.save_interval": "10"},
        "CollectionConfigurations": [
            {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "500"}}
        ],
    }
    (folder / "debughookconfig.json").write_text(json.dumps(given))
    profiler = {"ProfilingIntervalInMilliseconds": 500, "LocalPath": str(tmp_path / "profiler")}
    (folder / "profilerconfig.json").write_text(json.dumps(profiler))
    settings = monitor.MonitorSettings(monitor.SERVICE, tmp_path / "data", base_dir=tmp_path)
    with monitor.beside(settings) as watch:
        path = watch.hook_configuration(RunLength(steps_per_epoch=20, epochs=5, evaluation_steps=6))
        with watch.steps.step("TRAIN"):
            pass
    assert path is not None
    fitted = json.loads(path.read_text())
    collections = {
        one["CollectionName"]: one["CollectionParameters"] for one in fitted["CollectionConfigurations"]
    }
    assert fitted["LocalPath"] == given["LocalPath"]
    assert collections["gradients"]["train.save_interval"] == "20"
    assert collections["losses"] == {"train.save_interval": "4", "eval.save_interval": "2"}
    assert list((tmp_path / "profiler" / "framework").rglob("*_pythontimeline.json"))


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="in_jobs"),
        monitor.beside(monitor.MonitorSettings("in_jobs", tmp_path)),
    ):
        pass


def test_intervals_are_never_lengthened() -> None:
    short = hook_config.for_rules(["VanishingGradient"], Path("x"), train_interval=3, eval_interval=1)
    fitted = hook_config.fitted(short, RunLength(steps_per_epoch=1000, epochs=50, evaluation_steps=300))
    collections = {
        one["CollectionName"]: one["CollectionParameters"] for one in fitted["CollectionConfigurations"]
    }
    assert collections["losses"] == {"train.save_interval": "3", "eval.save_interval": "1"}
    assert collections["gradients"] == {"train.save_interval": "500", **hook_config.TRAINING_ONLY}
