"""Where drills happen: an Airflow and a local SageMaker of their own, with a pipeline made for quick runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import ClientError

from demo import services
from demo.airflow_api import FINISHED_RUN, AirflowApi, TaskState
from demo.aws import Aws, make_keys
from demo.drills import data
from demo.drills.faults import write_source
from demo.drills.traffic import Traffic
from demo.settings import ROOT, Settings
from demo.upload import create_bucket_and_role, dataset_files, sync

PIPELINE = "drills"
RETRAINING = f"{PIPELINE}_retraining"
ROLLBACK = f"{PIPELINE}_rollback"
CANARY_PERCENT = 50  # one of two instances
RUN_SECONDS = 900.0
POLL_SECONDS = 0.5
# A person's time to think. Airflow 3.3.2 loses a response that arrives before it has noted that the task
# waits: the task then fails, and asks again in its next attempt.
THINKING_SECONDS = 5.0

# What differs from the dog breed pipeline: small images and a small network for speed, short bake times,
# no rules, and a gate that lets an equally good model pass, because most drills deploy one.
CHANGES: Mapping[str, Any] = {
    "model": {"arch": "resnet18", "trainable": "all", "image_size": 48},
    "hyperparameters": {"lr": 0.1, "batch-size": 16, "epochs": 5},
    "tuning": {"max_jobs": 2, "max_parallel_jobs": 1},
    "evaluation": {"latency_images": 0, "bootstrap_samples": 1000},  # untimed: faults show in service only
    "gate": {"min_improvement": -0.1, "max_class_regression": 0.3},
    "endpoint": {"instance_count": 2},  # traffic moves with whole instances
    "deployment": {
        "strategy": "canary",
        "share_percent": CANARY_PERCENT,
        "bake_seconds": 15,
        "alarms": {"max_5xx": 2, "max_latency_ms": 1500},
    },
    "verify": {"images": 40},
    "retire": {"keep": 3},
    "debugger": "off",
    "rules": {},
}


@dataclass(frozen=True)
class Run:
    """A DAG run that has ended."""

    api: AirflowApi
    dag_id: str
    run_id: str
    state: str
    tasks: Mapping[str, TaskState]

    def task(self, task_id: str) -> str:
        """The state of a task."""
        return self.tasks[task_id].state

    def result(self, task_id: str) -> Any:
        """What a task returned, None where it returned nothing."""
        return self.api.result(self.dag_id, self.run_id, task_id)

    def errors(self) -> list[str]:
        """The errors in the logs of the tasks that failed."""
        lines = []
        for task in self.tasks.values():
            if task.state == "failed":
                for line in self.api.log(self.dag_id, self.run_id, task):
                    details = [f"{d['exc_type']}: {d['exc_value']}" for d in line.get("error_detail") or []]
                    if line.get("level") in {"error", "critical"}:
                        lines += [f"{task.task_id}: {text}" for text in (str(line.get("event")), *details)]
        return lines


@dataclass
class World:
    """The services, and what the drills do with them."""

    settings: Settings
    aws: Aws
    api: AirflowApi
    base: Path = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.settings.local / "data" / "base"

    def put_dataset(self, change: data.Change) -> None:
        folder = data.draw(self.base, self.settings.local / "data" / "current", change)
        sync(self.aws, dataset_files(folder), f"datasets/{PIPELINE}/", lambda _done, _total: None)

    def retrain(
        self,
        change: data.Change = data.clean,
        fault: str | None = None,
        response: str | None = None,
        **params: Any,
    ) -> Run:
        """A run on changed data and faulty code; `response` is a person's to the request for approval."""
        self.put_dataset(change)
        write_source(ROOT / "sagemaker_code", source(self.settings), fault)
        self.wait_for_quiet_alarms()
        conf = {"skip_tuning": True, "approval": response is not None, **params}
        return self.run(RETRAINING, conf, response)

    def roll_back(self) -> Run:
        return self.run(ROLLBACK, {})

    def run(self, dag_id: str, conf: Mapping[str, Any], response: str | None = None) -> Run:
        """Trigger a DAG and wait for its end. Raises TimeoutError."""
        run_id = self.api.trigger(dag_id, conf)
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            state = self.api.run(dag_id, run_id).state
            if state in FINISHED_RUN:
                tasks = {task.task_id: task for task in self.api.tasks(dag_id, run_id)}
                return Run(self.api, dag_id, run_id, state, tasks)
            if response is not None and self.api.asks(dag_id, run_id, "approve"):
                time.sleep(THINKING_SECONDS)
                self.api.respond(dag_id, run_id, "approve", response)
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"{dag_id} {run_id} did not end within {RUN_SECONDS:.0f} s")

    def configuration(self) -> str | None:
        """The endpoint configuration in service, None without an endpoint."""
        try:
            endpoint = self.aws.sagemaker.describe_endpoint(EndpointName=PIPELINE)
        except ClientError:
            return None
        return endpoint["EndpointConfigName"] if endpoint["EndpointStatus"] == "InService" else None

    def jobs(self) -> int:
        """How many training and tuning jobs there are."""
        training = self.aws.sagemaker.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
        tuning = self.aws.sagemaker.list_hyper_parameter_tuning_jobs(MaxResults=100)
        return len(training) + len(tuning["HyperParameterTuningJobSummaries"])

    def wait_for_quiet_alarms(self) -> None:
        """Until an earlier drill's figures have left the alarms' periods: an alarm stops a deployment."""
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            alarms = self.aws.cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]
            if not alarms:
                return
            time.sleep(POLL_SECONDS)
        raise TimeoutError(f"alarms stay on: {', '.join(alarm['AlarmName'] for alarm in alarms)}")


def own_settings(settings: Settings, name: str) -> Settings:
    """A folder of its own for drills or chaos, with free ports; the environments are the demonstration's."""
    local = settings.local / name
    local.mkdir(parents=True, exist_ok=True)
    environments = local / "envs"
    if not environments.exists():
        environments.symlink_to(settings.environments)
    return Settings(local, airflow_port=0, sagemaker_port=0)


def source(settings: Settings) -> Path:
    """The container's code as the drills' Airflow packs it."""
    return settings.local / "source"


def write_dags(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    """Copy the DAG files, with one pipeline: the dog breeds' under another name, without a schedule.

    `changes` are keys of the pipeline file; of a section, those given are replaced.
    """
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    for path in (ROOT / "dags").glob("*.py"):
        (folder / path.name).write_bytes(path.read_bytes())
    content = yaml.safe_load((ROOT / "dags" / "pipelines" / "dog_breed.yaml").read_text())
    for key, value in {"name": name, "schedule": None, **changes}.items():
        content[key] = {**content.get(key, {}), **value} if value and isinstance(value, dict) else value
    (folder / "pipelines" / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


@contextmanager
def opened(
    settings: Settings,
    changes: Mapping[str, Any] = CHANGES,
    url: str | None = None,
    between: Callable[[int], None] = lambda _port: None,
) -> Iterator[World]:
    """The services started on an empty state, and stopped at the end.

    `changes` are keys of the pipeline file. Airflow finds the local SageMaker at `url`, which leads to the
    port that `between` is told.
    """
    dags = settings.local / "dags"
    services.stop(settings)
    for leftover in (settings.airflow_home, settings.sagemaker_root, settings.logs, dags):
        shutil.rmtree(leftover, ignore_errors=True)
    recorded_calls(settings).unlink(missing_ok=True)
    write_dags(dags, PIPELINE, changes)
    write_source(ROOT / "sagemaker_code", source(settings), None)
    overrides = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "RETRAINING_SOURCE_DIR": str(source(settings)),
        **services.recording(recorded_calls(settings)),
    }
    make_keys(settings.credentials)
    if url is not None:
        overrides["AIRFLOW_CONN_AWS_DEFAULT"] = services.aws_connection(url, settings.credentials)
    try:
        services.start(settings, overrides=overrides)
        sagemaker = services.wait_until_ready(settings, "sagemaker")
        between(sagemaker.port)
        aws = Aws(sagemaker.url, settings.credentials)
        create_bucket_and_role(aws)
        airflow = services.wait_until_ready(settings, "airflow")
        with AirflowApi(airflow.url, "admin", services.password(settings)) as api:
            for dag_id in (RETRAINING, ROLLBACK):
                api.wait_for_dag(dag_id)
                api.unpause(dag_id)
            yield World(settings, aws, api)
    finally:
        services.stop(settings)


def recorded_calls(settings: Settings) -> Path:
    """The file of the AWS operations that Airflow's processes call."""
    return settings.local / "calls.txt"


def traffic(world: World, *, patient: bool = False) -> Traffic:
    """A client that sends the dataset's test images."""
    data.draw(world.base, world.settings.local / "data" / "current", data.clean)
    images = [
        path.read_bytes() for folder in data.classes(world.base, "test") for path in data.images(folder)
    ]
    return Traffic(world.aws, PIPELINE, images, patient=patient)
