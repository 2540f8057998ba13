"""The whole pipeline on real images: Airflow runs the DAG, the local SageMaker its jobs.

Nothing is replaced: what runs is `make demo DATA=... WEIGHTS=...`, with fewer trials and epochs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from retraining.runs.pages import address
from rich.console import Console

from demo import processes, services
from demo.airflow_api import AirflowApi
from demo.aws import Aws
from demo.next_steps import asking
from demo.pipelines import SAMPLE
from demo.prediction import predict
from demo.recorded_calls import compare
from demo.run import Demo, run_demo
from demo.settings import ROOT, Choice, DemoError, Settings

SHARED_DATA = Path(os.environ.get("SHARED_DATA") or ROOT.parent / "shared" / "data")
DATASET = SHARED_DATA / "dogImages"
WEIGHTS = SHARED_DATA / "weights" / "squeezenet1_0.pth"
PARAMS = {"max_jobs": 2, "max_parallel_jobs": 1, "epochs_min": 1, "epochs_max": 1, "image_size": 128}
TEST_ACCURACY = 0.55  # of a new head on frozen features; chance is 1 of 6

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (DATASET.is_dir() and WEIGHTS.is_file()),
        reason="the images and weights are not there: set SHARED_DATA to their folder",
    ),
]


@dataclass(frozen=True)
class Finished:
    """A run that has ended: its record, its terminal output, and the services, which still run."""

    succeeded: bool
    record: dict[str, Any]
    output: str
    aws: Aws
    settings: Settings
    calls: Path


CHOICE = Choice(DATASET, WEIGHTS, "squeezenet1_0", PARAMS, SAMPLE.pipeline)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    local = tmp_path_factory.mktemp("local")
    (local / "envs").symlink_to(Path(sys.prefix).parent)
    settings = Settings(local, airflow_port=0, sagemaker_port=0)
    output = StringIO()
    calls = local / "calls.txt"
    patch = pytest.MonkeyPatch()
    patch.setenv(services.RECORDED_CALLS, str(calls))
    demo = Demo(settings, CHOICE, Console(file=output, width=120))
    try:
        succeeded = run_demo(demo, end_earlier=True)
        sagemaker = services.find(settings, "sagemaker")
        if sagemaker is None:
            raise DemoError("The local SageMaker ended during the run")
        record = json.loads(settings.report.read_text())
        yield Finished(
            succeeded, record, output.getvalue(), Aws(sagemaker.url, settings.credentials), settings, calls
        )
    finally:
        patch.undo()
        print(output.getvalue())
        services.stop(settings)


def test_the_run_succeeds_and_every_task_with_it(finished: Finished) -> None:
    assert finished.succeeded, finished.output
    assert finished.record["state"] == "success"
    assert {task["state"] for task in finished.record["tasks"]} == {"success"}


def test_airflow_calls_what_its_policy_allows(finished: Finished) -> None:
    comparison = compare(finished.calls)
    assert comparison.forbidden == frozenset()
    assert {"sagemaker.CreateHyperParameterTuningJob", "sagemaker.CreateEndpoint"} <= comparison.called


def test_tuning_tries_what_was_asked_and_training_takes_the_best(finished: Finished) -> None:
    trials = finished.record["tuning"]["trials"]
    best = max(trials, key=lambda trial: trial["objective"])
    assert len(trials) == PARAMS["max_jobs"]
    assert finished.record["tuning"]["best_trial"] == best["name"]
    used = finished.record["training"]["hyperparameters"]
    assert {name: used[name] for name in finished.record["best_hyperparameters"]} == finished.record[
        "best_hyperparameters"
    ]


def test_the_model_has_learned(finished: Finished) -> None:
    assert finished.record["metrics"]["test_accuracy"] >= TEST_ACCURACY


def test_the_endpoint_gives_the_models_answers_for_the_whole_test_set(finished: Finished) -> None:
    images = sorted(DATASET.glob("test/*/*"))
    with ThreadPoolExecutor(2) as pool:
        responses = list(pool.map(lambda image: predict(finished.aws, SAMPLE.endpoint, image), images))
    accuracy = sum(response.right for response in responses) / len(responses)
    assert accuracy == pytest.approx(finished.record["metrics"]["test_accuracy"], abs=1e-4)


def test_the_lines_that_ask_the_endpoint_work_as_they_are(finished: Finished) -> None:
    image = next((DATASET / "test").rglob("*.jpg"))
    lines = asking(finished.settings, finished.aws.url, SAMPLE.endpoint, image)
    assert {"curl", "Python"} <= lines.keys()
    for client, line in lines.items():
        asked = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)  # noqa: S602
        assert '"predictions"' in asked.stdout, (client, asked.stderr)
    assert "make open" in finished.output


def test_the_runs_pages_open_by_fresh_links_for_who_may_see_the_run(finished: Finished) -> None:
    airflow = services.find(finished.settings, "airflow")
    assert airflow is not None
    run_id = finished.record["run_id"]
    with AirflowApi(airflow.url, "admin", services.password(finished.settings)) as api:
        for page in ("report", "dataset", "profiler"):
            path = address(SAMPLE.dag_id, run_id, page)
            assert httpx.get(airflow.url + path).status_code == 401
            response = api.client.get(path)
            assert response.status_code == 302, response.text
            opened = httpx.get(response.headers["location"])
            assert (opened.status_code, opened.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert api.client.get(address(SAMPLE.dag_id, run_id, "other")).status_code == 404
        assert api.client.get(address(SAMPLE.dag_id, "no-such-run", "report")).status_code == 404


def test_the_endpoint_refuses_a_text_and_goes_on_serving(finished: Finished) -> None:
    runtime = finished.aws.runtime
    with pytest.raises(runtime.exceptions.ModelError) as refused:
        runtime.invoke_endpoint(EndpointName=SAMPLE.endpoint, ContentType="image/jpeg", Body=b"not a image")
    assert dict(refused.value.response)["OriginalStatusCode"] == 400
    image = next(DATASET.glob("test/*/*"))
    assert predict(finished.aws, SAMPLE.endpoint, image).predictions


def test_the_record_divides_the_time_into_jobs_and_orchestration(finished: Finished) -> None:
    timing = finished.record["timing"]
    assert timing["job_seconds"] > 0
    assert timing["job_seconds"] + timing["orchestration_seconds"] == pytest.approx(
        timing["run_seconds"], abs=0.1
    )


def test_the_terminal_shows_tasks_trials_epochs_and_breeds(finished: Finished) -> None:
    for expected in ("task tune: success", "trial 001", "epoch=1 ", "Test accuracy: ", "Chihuahua"):
        assert expected in finished.output


def test_up_and_down_after_all_but_one_process_was_killed(finished: Finished) -> None:
    """The last test: the endpoint's model servers outlive the rest, and `down` leaves nothing."""
    settings, home = finished.settings, services.folder(finished.settings)
    killed = services.find_supervisor(settings)
    for name in ("sagemaker", "api-server", "scheduler", "dag-processor"):
        killed += processes.members(home, name, None)
    [triggerer, *_] = processes.members(home, "triggerer", None)
    servers = processes.jobs(settings.sagemaker_root)
    processes.kill(killed)

    services.start(settings)
    sagemaker = services.wait_until_ready(settings, "sagemaker")
    airflow = services.wait_until_ready(settings, "airflow")
    with AirflowApi(airflow.url, "admin", services.password(settings)) as api:
        api.wait_for_dag(SAMPLE.dag_id)
    assert processes.alive(triggerer)
    assert servers
    assert all(map(processes.alive, servers))
    assert predict(
        Aws(sagemaker.url, settings.credentials), SAMPLE.endpoint, next(DATASET.glob("test/*/*"))
    ).predictions

    assert set(services.stop(settings)) == {*services.PARTS} - {"airflow-database"}
    assert [process for name in services.PARTS for process in processes.members(home, name, None)] == []
    assert processes.jobs(settings.sagemaker_root) == []
