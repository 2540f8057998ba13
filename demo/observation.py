"""What a run looks like from outside: its tasks by Airflow's API, its jobs and their logs by SageMaker's.

Nothing here knows how the DAG names its jobs: they are the ones created since the run was triggered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from demo.airflow_api import AirflowApi, DagRun, TaskState
from demo.aws import Aws

if TYPE_CHECKING:
    from mypy_boto3_logs.type_defs import GetLogEventsRequestTypeDef
    from mypy_boto3_sagemaker.type_defs import DescribeTrainingJobResponseTypeDef

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
EPOCH_LINE = re.compile(r"\bepoch=\d+ ")
PAIR = re.compile(r"\b([a-z_]+)=(\S+)")
LAST_LINES = timedelta(seconds=5)  # within which an ended job's last log lines have arrived
CLOCK_SLACK = timedelta(seconds=2)  # SageMaker's times have whole seconds here and there


@dataclass(frozen=True)
class Job:
    """A training job, a tuning's trial or the run's own. `epochs` are its metric lines, the newest last."""

    name: str
    status: str
    stage: str
    created: datetime
    ended: datetime | None
    hyperparameters: Mapping[str, str]
    metrics: Mapping[str, float]
    objective: float | None
    failure: str | None
    epochs: tuple[Mapping[str, float], ...] = ()

    @property
    def seconds(self) -> float:
        return ((self.ended or datetime.now(UTC)) - self.created).total_seconds()


@dataclass(frozen=True)
class Tuning:
    name: str
    status: str
    created: datetime
    ended: datetime | None
    trials: tuple[Job, ...]
    best_trial: str | None
    best_hyperparameters: Mapping[str, str]
    failure: str | None


@dataclass(frozen=True)
class View:
    """A run at one moment."""

    run: DagRun
    tasks: tuple[TaskState, ...]
    tuning: Tuning | None = None
    training: Job | None = None


def metric_pairs(line: str) -> dict[str, float]:
    """The `name=number` pairs of a log line."""
    pairs = {}
    for name, text in PAIR.findall(line):
        try:
            pairs[name] = float(text)
        except ValueError:
            continue
    return pairs


@dataclass
class LogFollower:
    """The epochs that a training job has logged, read on from where the last poll ended."""

    aws: Aws
    job: str
    stream: str | None = None
    token: str | None = None
    epochs: list[Mapping[str, float]] = field(default_factory=list)

    def read(self) -> tuple[Mapping[str, float], ...]:
        if self.stream is None:
            self.stream = self.find_stream()
        if self.stream is not None:
            self.read_on(self.stream)
        return tuple(self.epochs)

    def find_stream(self) -> str | None:
        try:
            response = self.aws.logs.describe_log_streams(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
            )
        except self.aws.logs.exceptions.ResourceNotFoundException:
            return None
        return next((stream["logStreamName"] for stream in response["logStreams"]), None)

    def read_on(self, stream: str) -> None:
        while True:
            request: GetLogEventsRequestTypeDef = {
                "logGroupName": LOG_GROUP,
                "logStreamName": stream,
                "startFromHead": True,
            }
            if self.token:
                request["nextToken"] = self.token
            response = self.aws.logs.get_log_events(**request)
            for event in response["events"]:
                if EPOCH_LINE.search(event["message"]):
                    self.epochs.append(metric_pairs(event["message"]))
            if response["nextForwardToken"] == self.token or not response["events"]:
                return
            self.token = response["nextForwardToken"]


@dataclass
class Observer:
    """Looks at one run of the DAG, as often as it is asked."""

    airflow: AirflowApi
    aws: Aws
    dag_id: str
    run_id: str
    since: datetime
    order: list[str]
    followers: dict[str, LogFollower] = field(default_factory=dict)
    finished: dict[str, Job] = field(default_factory=dict)

    def poll(self) -> View:
        run = self.airflow.run(self.dag_id, self.run_id)
        places = {task_id: place for place, task_id in enumerate(self.order)}
        tasks = sorted(
            self.airflow.tasks(self.dag_id, self.run_id),
            key=lambda task: (places.get(task.task_id, len(places)), task.task_id),
        )
        tuning = self.tuning()
        return View(run, tuple(tasks), tuning, self.training(tuning))

    def tuning(self) -> Tuning | None:
        summaries = self.aws.sagemaker.list_hyper_parameter_tuning_jobs(
            CreationTimeAfter=self.since - CLOCK_SLACK, SortBy="CreationTime", SortOrder="Descending"
        )["HyperParameterTuningJobSummaries"]
        if not summaries:
            return None
        name = summaries[0]["HyperParameterTuningJobName"]
        job = self.aws.sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
        trials = self.aws.sagemaker.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending", MaxResults=100
        )["TrainingJobSummaries"]
        best = job.get("BestTrainingJob")
        return Tuning(
            name=name,
            status=job["HyperParameterTuningJobStatus"],
            created=job["CreationTime"],
            ended=job.get("HyperParameterTuningEndTime"),
            trials=tuple(self.job(trial["TrainingJobName"]) for trial in trials),
            best_trial=best["TrainingJobName"] if best else None,
            best_hyperparameters=dict(best["TunedHyperParameters"]) if best else {},
            failure=job.get("FailureReason"),
        )

    def training(self, tuning: Tuning | None) -> Job | None:
        """The run's own training job: the newest one that is no trial."""
        trials = {trial.name for trial in tuning.trials} if tuning else set()
        summaries = self.aws.sagemaker.list_training_jobs(
            CreationTimeAfter=self.since - CLOCK_SLACK, SortBy="CreationTime", SortOrder="Descending"
        )["TrainingJobSummaries"]
        names = [job["TrainingJobName"] for job in summaries if job["TrainingJobName"] not in trials]
        own = [name for name in names if tuning is None or not name.startswith(f"{tuning.name}-0")]
        return self.job(own[0]) if own else None

    def job(self, name: str) -> Job:
        if name in self.finished:
            return self.finished[name]
        response = self.aws.sagemaker.describe_training_job(TrainingJobName=name)
        follower = self.followers.setdefault(name, LogFollower(self.aws, name))
        job = described_job(response, follower.read())
        if job.ended and datetime.now(UTC) - job.ended > LAST_LINES:
            self.finished[name] = job
        return job


def described_job(
    response: DescribeTrainingJobResponseTypeDef, epochs: tuple[Mapping[str, float], ...]
) -> Job:
    hyperparameters = response.get("HyperParameters", {})
    metrics = {metric["MetricName"]: metric["Value"] for metric in response.get("FinalMetricDataList", [])}
    return Job(
        name=response["TrainingJobName"],
        status=response["TrainingJobStatus"],
        stage=response["SecondaryStatus"],
        created=response["CreationTime"],
        ended=response.get("TrainingEndTime"),
        hyperparameters={name: value.strip('"') for name, value in hyperparameters.items()},
        metrics=metrics,
        objective=metrics.get(hyperparameters.get("_tuning_objective_metric", "").strip('"')),
        failure=response.get("FailureReason"),
        epochs=epochs,
    )
