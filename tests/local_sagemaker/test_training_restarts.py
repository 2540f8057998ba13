"""Training jobs whose runtime is killed: nothing is lost, repeated or run twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_sagemaker.store import Store

from local_sagemaker import processes
from tests.local_sagemaker.conftest import BUCKET, ROLE_ARN, MakeRuntime
from tests.local_sagemaker.runtime_process import wait_for
from tests.local_sagemaker.training_support import IMAGE, JobRunner

COUNTING = """
import os, pathlib, sys, time
base = pathlib.Path(os.environ["SM_MODEL_DIR"]).parent
step = 0
while not (base / "go").exists() or step < 100:
    step += 1
    print(f"step={step} loss={1 / step}")
    time.sleep(0.02)
(base / "model" / "steps").write_text(str(step))
print(f"steps {step}")
"""
METRICS = {
    "TrainingImage": IMAGE,
    "TrainingInputMode": "File",
    "MetricDefinitions": [{"Name": "step", "Regex": r"\bstep=(\d+)"}],
}


@pytest.fixture
def jobs(make_runtime: MakeRuntime) -> Iterator[JobRunner]:
    """Jobs in a runtime that the test may kill."""
    runner = JobRunner(make_runtime(), BUCKET, ROLE_ARN)
    runner.s3.create_bucket(Bucket=BUCKET)
    yield runner
    for folder in (runner.runtime.root / "training-job").iterdir():
        if (group := processes.find(folder / "process")) is not None:
            group.kill()


def folder(jobs: JobRunner, name: str) -> Path:
    return jobs.runtime.root / "training-job" / name


def recorded(jobs: JobRunner, name: str) -> list[float]:
    """The values of a job's metrics, in the order in which they were emitted."""
    store = Store(jobs.runtime.root / "store.sqlite")
    try:
        return [value for _, value, _ in store.metrics(name)]
    finally:
        store.close()


def grows(path: Path) -> None:
    size = path.stat().st_size
    wait_for(lambda: path.stat().st_size > size, 60, f"{path} to grow")


def test_a_job_runs_on_while_its_runtime_is_down(jobs: JobRunner) -> None:
    jobs.create("counts", COUNTING, AlgorithmSpecification=METRICS)
    jobs.wait_for_line("counts", "step=10 ")
    for _ in range(2):
        jobs.runtime.kill()
        grows(folder(jobs, "counts") / "container.log")
        jobs.runtime.start()
        jobs.wait_for_line("counts", "step=")
    assert jobs.describe("counts")["SecondaryStatus"] == "Training"
    (folder(jobs, "counts") / "opt_ml" / "go").touch()
    job = jobs.wait("counts")
    assert job["TrainingJobStatus"] == "Completed"
    log = jobs.log("counts")
    total = int(next(line for line in log if line.startswith("steps ")).split()[1])
    steps = [int(line.split()[0].removeprefix("step=")) for line in log if line.startswith("step=")]
    assert steps == list(range(1, total + 1))
    assert [item["Value"] for item in job["FinalMetricDataList"]] == [total]
    assert recorded(jobs, "counts") == [float(step) for step in range(1, total + 1)]
    assert [item["Status"] for item in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert jobs.members("out/counts/output/model.tar.gz") == {"steps": str(total).encode()}


def test_a_job_created_right_before_a_crash_runs_after_it(jobs: JobRunner) -> None:
    jobs.put("data/1.txt")
    jobs.create("counts", COUNTING, InputDataConfig=[jobs.channel("train", "data")])
    jobs.runtime.kill()
    jobs.runtime.start()
    jobs.wait_for_line("counts", "step=10 ")
    (folder(jobs, "counts") / "opt_ml" / "go").touch()
    assert jobs.wait("counts")["TrainingJobStatus"] == "Completed"
    assert len([line for line in jobs.log("counts") if line.startswith("step=1 ")]) == 1


def test_a_job_that_ends_while_the_runtime_is_down_is_completed_later(jobs: JobRunner) -> None:
    jobs.create("counts", COUNTING)
    jobs.wait_for_line("counts", "step=10 ")
    jobs.runtime.kill()
    (folder(jobs, "counts") / "opt_ml" / "go").touch()
    group = processes.find(folder(jobs, "counts") / "process")
    assert group is not None
    assert group.wait(60) == 0
    jobs.runtime.start()
    assert jobs.wait("counts")["TrainingJobStatus"] == "Completed"
    assert any(line.startswith("steps ") for line in jobs.log("counts"))
    jobs.runtime.kill()
    jobs.runtime.start()
    assert any(line.startswith("steps ") for line in jobs.log("counts"))
    assert jobs.describe("counts")["TrainingJobStatus"] == "Completed"


def test_a_job_of_a_machine_that_went_down_has_failed(jobs: JobRunner) -> None:
    jobs.create("counts", COUNTING)
    jobs.wait_for_line("counts", "step=10 ")
    jobs.runtime.kill()
    group = processes.find(folder(jobs, "counts") / "process")
    assert group is not None
    os.kill(group.pid, signal.SIGKILL)
    os.killpg(group.group, signal.SIGKILL)
    jobs.runtime.start()
    job = jobs.wait("counts")
    assert job["TrainingJobStatus"] == "Failed"
    assert "ended without an exit code" in job["FailureReason"]


def test_a_stop_survives_a_restart(jobs: JobRunner) -> None:
    jobs.create("stops", "import time\nprint('running')\ntime.sleep(300)")
    jobs.wait_for_line("stops", "running")
    jobs.sagemaker.stop_training_job(TrainingJobName="stops")
    jobs.runtime.kill()
    jobs.runtime.start()
    assert jobs.wait("stops")["TrainingJobStatus"] == "Stopped"


def test_a_runtime_that_is_stopped_leaves_its_jobs_running(jobs: JobRunner) -> None:
    jobs.create("counts", COUNTING)
    jobs.wait_for_line("counts", "step=10 ")
    assert jobs.runtime.stop() == 0
    group = processes.find(folder(jobs, "counts") / "process")
    assert group is not None
    assert group.running()
    jobs.runtime.start()
    (folder(jobs, "counts") / "opt_ml" / "go").touch()
    assert jobs.wait("counts")["TrainingJobStatus"] == "Completed"
