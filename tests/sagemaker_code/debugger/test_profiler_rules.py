"""The profiler rules on samples built for one condition each, and on damaged files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from debugger.profiler.advice import advise
from debugger.profiler.parameters import ProfilerParameterError, resolve
from debugger.profiler.rules import evaluate, read_evidence

from tests.sagemaker_code.debugger.samples_support import START, record, tick, write_lines, write_trace

TICKS = 1300


def test_two_gpus_are_judged_one_by_one_and_against_each_other(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "m.jsonl", [one for n in range(TICKS) for one in tick(n, cpus=[30, 40], gpus=[95, 20])]
    )
    reports = evaluate(read_evidence(path))
    low = reports["LowGPUUtilization"]
    assert list(low.details["algo-1"]) == ["gpu1"]
    assert low.details["algo-1"]["gpu1"]["gpu_95"] == 20
    assert reports["LoadBalancing"].triggered == low.triggered > 0
    assert reports["OverallSystemUsage"].details["GPU"]["algo-1"]["p50"] == 57.5
    assert reports["OverallSystemUsage"].details["CPU"]["algo-1"]["p50"] == 35


def test_a_busy_core_beside_an_idle_gpu_is_a_bottleneck(tmp_path: Path) -> None:
    records = [
        one
        for n in range(TICKS)
        for one in tick(n, cpus=[99 if n % 3 else 10, 99 if n % 2 else 10], gpus=[3 if n % 5 else 90])
    ]
    path = write_lines(tmp_path / "m.jsonl", records)
    report = evaluate(read_evidence(path))["CPUBottleneck"]
    expected = [n for n in range(TICKS) if n % 5 and (n % 3 or n % 2)]
    assert report.violations == len(expected)
    assert report.details["low_gpu_utilization"] == len([n for n in range(TICKS) if n % 5])
    assert report.triggered > 0
    assert {"GPUs": 1, "CPUs": 2} in report.details["bottlenecks"].values()


def test_an_overridden_threshold_is_used_and_printed(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "m.jsonl", [one for n in range(TICKS) for one in tick(n, cpus=[85], gpus=[3])]
    )
    evidence = read_evidence(path)
    assert evaluate(evidence)["CPUBottleneck"].violations == 0
    report = evaluate(evidence, {"CPUBottleneck_cpu_threshold": "80", "rule_to_invoke": "ProfilerReport"})[
        "CPUBottleneck"
    ]
    assert report.violations == TICKS
    assert "cpu_threshold:80" in report.document()["RuleParameters"]


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("Nothing_threshold", "1", "Nothing"),
        ("BatchSize_size", "1", "size"),
        ("BatchSize_window", "x", "window"),
    ],
)
def test_a_bad_override_is_named(key: str, value: str, named: str) -> None:
    with pytest.raises(ProfilerParameterError, match=named):
        resolve({key: value})


def test_two_nodes_are_reported_apart(tmp_path: Path) -> None:
    folder = tmp_path / "system" / "incremental" / "2023111422"
    for node, gpu in (("algo-1", 90.0), ("algo-2", 5.0)):
        lines = [one for n in range(120) for one in tick(n, cpus=[50], gpus=[gpu], node=node)]
        write_lines(folder / f"{int(START)}.{node}.json", lines)
    evidence = read_evidence(tmp_path)
    usage = evaluate(evidence)["OverallSystemUsage"]
    assert evidence.system.nodes == ["algo-1", "algo-2"]
    assert usage.details["GPU"]["algo-1"]["p50"] == 90
    assert usage.details["GPU"]["algo-2"]["p50"] == 5


def test_damaged_files_give_the_numbers_of_the_rest(tmp_path: Path) -> None:
    whole = [one for n in range(200) if not 80 <= n < 110 for one in tick(n, cpus=[n % 100], gpus=[50])]
    damaged = [*whole, whole[3], record("cpu", "cpu0", "CPUUtilization", float("nan"), START)]
    random.Random(1).shuffle(damaged)
    folder = tmp_path / "system" / "incremental" / "2023111422"
    write_lines(folder / f"{int(START)}.algo-1.json", damaged[:250], tail='not json\n{"Type": "cpu", "Na')
    write_lines(folder / f"{int(START) + 60}.algo-1.json", damaged[250:])
    write_lines(folder / f"{int(START) + 120}.algo-1.json", [])
    evidence = read_evidence(tmp_path)
    clean = read_evidence(write_lines(tmp_path / "clean" / "m.jsonl", whole))
    ours, theirs = (evaluate(one)["OverallSystemUsage"].document() for one in (evidence, clean))
    assert ours == theirs
    notes = evidence.system.notes
    assert (notes.unreadable, notes.cut_off, notes.duplicates, len(notes.gaps)) == (2, 1, 1, 1)
    assert len(notes.sentences()) == 5


def test_no_samples_at_all_is_a_report_not_a_crash(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", [])
    evidence = read_evidence(path)
    reports = evaluate(evidence)
    assert all(one.triggered == 0 and one.datapoints == 0 for one in reports.values())
    assert advise(evidence, reports)[0].title == "No system samples"


def test_waiting_for_data_is_told_with_its_remedy(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "system" / "incremental" / "2023111422" / f"{int(START)}.algo-1.json",
        [one for n in range(120) for one in tick(n, cpus=[90, 90, 90, 90], gpus=[20])],
    )
    events = [
        ("DataLoaderIterInitialize", 0.0, 0.01, {"num_workers": 0, "pin_memory": False, "mode": "TRAIN"})
    ]
    moment = 0.02
    for number in range(100):
        slow = number % 100 < 71
        wait = 0.3 if slow else 0.05
        events.append(("DataLoaderIter", moment, wait, {"step_num": str(number), "mode": "TRAIN"}))
        events.append(("Step:ModeKeys.TRAIN", moment + wait, 0.1, {"step_num": str(number)}))
        moment += wait + 0.1
    write_trace(tmp_path, events)
    evidence = read_evidence(tmp_path)
    reports = evaluate(evidence)
    advice = next(one for one in advise(evidence, reports) if "waits for data" in one.title)
    assert advice.title == "The GPU waits for data"
    assert "71 % of 100 training steps" in advice.text
    assert "raise num_workers from 0 to 4" in advice.text
    loader = reports["Dataloader"]
    assert loader.triggered == 1
    assert loader.details["num_workers"] == 0
    assert loader.details["cores"] == 4


def test_outlying_steps_fire_and_are_named(tmp_path: Path) -> None:
    events = []
    moment = 0.0
    for number in range(400):
        duration = 3.0 if number % 30 == 29 else 0.1
        events.append(("Step:ModeKeys.TRAIN", moment, duration, {"step_num": str(number)}))
        moment += duration
    write_trace(tmp_path, events)
    report = evaluate(read_evidence(tmp_path))["StepOutlier"]
    described = report.details["step_details"]["algo-1-7"]
    assert described["number_of_outliers"] == 13
    assert described["step_numbers"][:2] == ["29", "59"]
    assert len(described["probs"]) == 100
    assert len(described["binedges"]) == 101
    assert max(described["binedges"]) < 1
    assert report.triggered >= 1


def test_a_late_first_step_fires_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "m.jsonl", tick(0, cpus=[1]) + tick(4000, cpus=[1]))
    write_trace(tmp_path, [("Step:ModeKeys.TRAIN", 1500.0, 1.0, {"step_num": "0"})])
    report = evaluate(read_evidence(tmp_path))["MaxInitializationTime"]
    assert report.triggered == 1
    assert report.details["step_num"]["first"] == int((START + 1500) * 1e6)


def test_a_half_written_trace_gives_what_it_holds(tmp_path: Path) -> None:
    events = [("Step:ModeKeys.TRAIN", n * 1.0, 0.5, {"step_num": str(n)}) for n in range(10)]
    path = write_trace(tmp_path, events)
    text = path.read_text()
    path.write_text(text[: int(len(text) * 0.8)])
    steps = read_evidence(tmp_path).framework.steps()
    assert 5 <= len(steps) < 10
