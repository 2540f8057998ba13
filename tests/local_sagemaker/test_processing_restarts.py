"""Processing jobs whose runtime is killed: nothing is lost, repeated or run twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from local_sagemaker.processes import ProcessGroup

from local_sagemaker import processes
from tests.local_sagemaker.conftest import BUCKET, ROLE_ARN, MakeRuntime
from tests.local_sagemaker.processing_support import PROCESSING, ProcessingRunner

COUNTS = """
import os, pathlib, time
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
step = 0
while not (base / "go").exists() or step < 50:
    step += 1
    print("step", step)
    time.sleep(0.02)
(pathlib.Path(os.environ["OUT"]) / "steps").write_text(str(step))
"""


@pytest.fixture
def jobs(make_runtime: MakeRuntime) -> Iterator[ProcessingRunner]:
    """Jobs in a runtime that the test may kill."""
    runner = ProcessingRunner(make_runtime(), BUCKET, ROLE_ARN)
    runner.s3.create_bucket(Bucket=BUCKET)
    yield runner
    group(runner).kill()


def group(jobs: ProcessingRunner) -> ProcessGroup:
    found = processes.find(jobs.runtime.root / "processing-job" / "counts" / "process")
    assert found is not None
    return found


def create(jobs: ProcessingRunner) -> None:
    outputs = jobs.outputs("counts")
    jobs.create("counts", COUNTS, Environment={"OUT": f"{PROCESSING}/out"}, ProcessingOutputConfig=outputs)


def let_go(jobs: ProcessingRunner) -> None:
    (jobs.runtime.root / "processing-job" / "counts" / "opt_ml" / "go").touch()


def check_complete(jobs: ProcessingRunner) -> None:
    assert jobs.wait("counts")["ProcessingJobStatus"] == "Completed"
    total = int(jobs.objects("out/counts/")["steps"])
    assert jobs.log("counts") == [f"step {number}" for number in range(1, total + 1)]


def test_a_job_runs_on_while_its_runtime_is_down(jobs: ProcessingRunner) -> None:
    create(jobs)
    jobs.wait_for_line("counts", "step 10")
    started = jobs.describe("counts")["ProcessingStartTime"]
    for _ in range(2):
        jobs.runtime.kill()
        jobs.runtime.start()
        jobs.wait_for_line("counts", "step 10")
    assert jobs.describe("counts")["ProcessingStartTime"] == started
    let_go(jobs)
    check_complete(jobs)


def test_a_job_created_right_before_a_crash_runs_after_it(jobs: ProcessingRunner) -> None:
    create(jobs)
    jobs.runtime.kill()
    jobs.runtime.start()
    jobs.wait_for_line("counts", "step 10")
    let_go(jobs)
    check_complete(jobs)


def test_a_job_that_ends_while_the_runtime_is_down_is_completed_later(jobs: ProcessingRunner) -> None:
    create(jobs)
    jobs.wait_for_line("counts", "step 10")
    jobs.runtime.kill()
    let_go(jobs)
    assert group(jobs).wait(60) == 0
    jobs.runtime.start()
    check_complete(jobs)
    jobs.runtime.kill()
    jobs.runtime.start()
    check_complete(jobs)


def test_a_stop_survives_a_restart(jobs: ProcessingRunner) -> None:
    script = (
        "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('asked'))\nprint('running')\n"
    )
    jobs.create("counts", script + "for _ in range(100): time.sleep(1)")
    jobs.wait_for_line("counts", "running")
    jobs.sagemaker.stop_processing_job(ProcessingJobName="counts")
    jobs.wait_for_line("counts", "asked")
    jobs.runtime.kill()
    jobs.runtime.start()
    assert jobs.describe("counts")["ProcessingJobStatus"] == "Stopping"
    group(jobs).kill()
    assert jobs.wait("counts")["ProcessingJobStatus"] == "Stopped"
