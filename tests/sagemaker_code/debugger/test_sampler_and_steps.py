"""System samples and step traces: AWS's files, written by ours, read by smdebug's own readers and by the
report.
"""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import psutil
import torch
from debugger.profiler.rules import evaluate, read_evidence
from debugger.sampler import Sampler
from debugger.steps import StepTimer
from smdebug.profiler.algorithm_metrics_reader import LocalAlgorithmMetricsReader
from smdebug.profiler.system_metrics_reader import LocalSystemMetricsReader
from smdebug.profiler.utils import TimeUnits


def sample_for(folder: Path, ticks: int) -> float:
    """Sample ``ticks`` times at 50 ms; CPU seconds of this thread that one tick took."""
    sampler = Sampler(folder, "algo-1", 0.05)
    spent = time.thread_time()
    for _ in range(ticks):
        sampler.tick()
        threading.Event().wait(0.05)
    spent = time.thread_time() - spent
    sampler.close()
    return spent / ticks


def test_samples_have_awss_layout_names_and_rates(tmp_path: Path) -> None:
    per_tick = sample_for(tmp_path, 12)
    files = list((tmp_path / "system" / "incremental").rglob("*.json"))
    assert files
    assert all(re.fullmatch(r"\d{10}/\d+\.algo-1\.json", f"{one.parent.name}/{one.name}") for one in files)
    assert all(int(one.name.split(".")[0]) % 60 == 0 for one in files)
    assert (tmp_path / "system" / "training_job_end.ts").exists()
    records = [json.loads(line) for one in files for line in one.read_text().splitlines()]
    assert {tuple(one) for one in records} == {("Type", "Name", "Dimension", "Value", "NodeId", "Timestamp")}
    kinds = {(one["Type"], one["Dimension"]) for one in records}
    assert {("cpu", "CPUUtilization"), ("cpu", "I/OWaitPercentage"), ("memory", "")} <= kinds
    assert ("network", "Algorithm") in kinds
    cores = {one["Name"] for one in records if one["Type"] == "cpu"}
    assert len(cores) == psutil.cpu_count()
    assert all(0 <= one["Value"] <= 100 for one in records if one["Type"] in ("cpu", "gpu", "memory"))
    assert per_tick < 0.05
    usage = evaluate(read_evidence(tmp_path))["OverallSystemUsage"]
    assert usage.datapoints == 11


def test_smdebugs_reader_reads_our_samples(tmp_path: Path) -> None:
    before = time.time()
    sample_for(tmp_path, 4)
    events = LocalSystemMetricsReader(str(tmp_path)).get_events(
        before - 120, time.time() + 120, TimeUnits.SECONDS
    )
    assert {one.type for one in events} >= {"cpu", "memory"}


def slow_loader(batches: int) -> list[torch.Tensor]:
    """Batches of a list need no loader settings."""
    return [torch.ones(1)] * batches


def test_steps_and_waits_are_timed_and_numbered(tmp_path: Path) -> None:
    timer = StepTimer(tmp_path, profile_from=2, profile_steps=2)
    images = torch.utils.data.TensorDataset(torch.randn(40, 3, 8, 8))
    loader = torch.utils.data.DataLoader(images, batch_size=4, num_workers=0)
    weights = torch.randn(3 * 64, 64)
    for (batch,) in timer.batches(loader, "TRAIN"):
        with timer.step("TRAIN"):
            (batch.flatten(1) @ weights).relu().sum()
    for _ in timer.batches(slow_loader(3), "EVAL"):
        with timer.step("EVAL"):
            pass
    timer.close()
    evidence = read_evidence(tmp_path)
    steps = evidence.framework.of("Step:ModeKeys.TRAIN")
    assert [one.arguments["step_num"] for one in steps] == [str(number) for number in range(10)]
    assert len(evidence.framework.of("Step:ModeKeys.EVAL")) == 3
    assert len(evidence.framework.loading()) == 13
    assert evidence.framework.loader_settings()["batch_size"] == 4
    operators = {one.name for one in evidence.framework.of("cpu_functions")}
    assert {"aten::matmul", "aten::relu", "aten::sum"} <= operators
    details = evaluate(evidence)["OverallFrameworkMetrics"].details
    assert details["CPU"].keys() <= operators  # those with 2% of the time, which is the machine's to say
    assert sum(details["phase"].values()) > 99.9
    events = LocalAlgorithmMetricsReader(str(tmp_path)).get_events(0, time.time() + 60, TimeUnits.SECONDS)
    phases = {one.event_phase for one in events}
    assert {"Step:ModeKeys.TRAIN", "Step:ModeKeys.EVAL", "DataLoaderIter"} <= phases


def test_without_a_folder_nothing_is_written_and_batches_pass() -> None:
    timer = StepTimer(None)
    with timer.step():
        assert list(timer.batches([1, 2])) == [1, 2]
    timer.close()
