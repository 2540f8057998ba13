"""A tuning job's rounds against training jobs whose every report the test decides.

Real trials cost seconds each and end when they like. Here hundreds are played through to the exact round, on
a clock of the test's own; `test_tuning_jobs` runs real training jobs through boto3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from local_sagemaker.context import Context, Settings
from local_sagemaker.errors import ApiError, ResourceInUseError, ValidationError
from local_sagemaker.store import Document, DocumentExistsError, Store
from local_sagemaker.tuning.jobs import TuningJobs, new_document
from local_sagemaker.tuning.progress import TUNING_JOB, TuningJob

NAME = "breeds"
Curve = Callable[[dict[str, str]], list[float] | None]


@dataclass
class ScriptedTraining:
    """Training jobs that report once a `tick` and then end; a curve of None is a crash."""

    context: Context
    curve: Curve
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    most_at_once: int = 0

    def check(self, request: dict[str, Any]) -> None:
        """Accept any request."""

    def create(self, request: dict[str, Any], *, tuning_job_arn: str | None = None) -> str:
        name = request["TrainingJobName"]
        arn = self.context.arn("training-job", name)
        document = {
            "TrainingJobName": name,
            "TrainingJobArn": arn,
            "TrainingJobStatus": "InProgress",
            "CreationTime": self.context.clock(),
            "TuningJobArn": tuning_job_arn,
        }
        try:
            self.context.store.create("training-job", name, document)
        except DocumentExistsError as error:
            raise ResourceInUseError(name) from error
        self.requests[name] = request
        self.most_at_once = max(self.most_at_once, len(self.running()))
        return arn

    def stop_job(self, name: str) -> None:
        self._change(name, TrainingJobStatus="Stopping")

    def running(self) -> list[Document]:
        jobs = self.context.store.list("training-job")
        return [job for job in jobs if job["TrainingJobStatus"] in {"InProgress", "Stopping"}]

    def tick(self) -> None:
        """The next report of every running job, or its end."""
        for job in self.running():
            name = job["TrainingJobName"]
            values = self.curve(self.requests[name]["HyperParameters"])
            done = len(self.context.store.metrics(name, "accuracy"))
            if job["TrainingJobStatus"] == "Stopping":
                self._end(name, "Stopped")
            elif values is None:
                self._end(name, "Failed", FailureReason="AlgorithmError: out of memory")
            elif done < len(values):
                self.context.store.add_metric(name, "accuracy", values[done], self.context.clock())
                self._change(name, FinalMetricDataList=[{"MetricName": "accuracy", "Value": values[done]}])
            else:
                self._end(name, "Completed")

    def _end(self, name: str, status: str, **members: Any) -> None:
        self._change(name, TrainingJobStatus=status, TrainingEndTime=self.context.clock(), **members)

    def _change(self, name: str, **members: Any) -> None:
        self.context.store.update("training-job", name, lambda job: job.update(members))


@dataclass
class Bench:
    """A tuning job, its training jobs, and a clock that a round moves on by a second."""

    context: Context
    training: ScriptedTraining
    job: TuningJob
    now: list[float]

    def play(self, rounds: int = 2000) -> dict[str, Any]:
        """Rounds until the tuning job has ended; its description."""
        for _ in range(rounds):
            self.now[0] += 1
            if self.job.advance():
                return self.describe()
            self.training.tick()
        raise TimeoutError(f"still running after {rounds} rounds: {self.describe()}")

    def describe(self) -> dict[str, Any]:
        return self._service().describe({"HyperParameterTuningJobName": NAME})

    def trials(self, **request: Any) -> list[dict[str, Any]]:
        request = {"HyperParameterTuningJobName": NAME, "MaxResults": 100, **request}
        summaries: list[dict[str, Any]] = self._service().list_training_jobs(request)["TrainingJobSummaries"]
        return summaries

    def stop(self) -> None:
        self._service().stop({"HyperParameterTuningJobName": NAME})

    def restart(self) -> None:
        """Resume from the store, as another process would."""
        self.job = TuningJob(self.context, self.training, NAME)
        self.job.adopt()

    def _service(self) -> TuningJobs:
        return TuningJobs(self.context, self.training)


MakeBench = Callable[..., Bench]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    store = Store(tmp_path / "store.sqlite")
    yield Context(Settings(tmp_path, tmp_path / "images.yaml"), store)
    store.close()


@pytest.fixture
def make_bench(context: Context) -> MakeBench:
    def make(curve: Curve, **changes: Any) -> Bench:
        now = [1_000_000.0]
        context.clock = lambda: now[0]
        context.store.create(TUNING_JOB.resource_type, NAME, new_document(context, request(**changes)))
        training = ScriptedTraining(context, curve)
        return Bench(context, training, TuningJob(context, training, NAME), now)

    return make


def request(
    strategy: str = "Random",
    jobs: int | None = 10,
    parallel: int = 3,
    definition: dict[str, Any] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """A CreateHyperParameterTuningJob request; `config` adds to or replaces HyperParameterTuningJobConfig."""
    limits = {
        "MaxParallelTrainingJobs": parallel,
        **({} if jobs is None else {"MaxNumberOfTrainingJobs": jobs}),
    }
    return {
        "HyperParameterTuningJobName": NAME,
        "HyperParameterTuningJobConfig": {
            "Strategy": strategy,
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
            "ResourceLimits": limits | config.pop("limits", {}),
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}],
            },
            "RandomSeed": 4,
            **config,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": "training:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=(.*)"}],
            },
            "RoleArn": "arn:aws:iam::123456789012:role/SageMakerRetrainingRole",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "StaticHyperParameters": {"epochs": "9"},
            **(definition or {}),
        },
    }


def climbing(values: dict[str, str]) -> list[float]:
    """Nine epochs towards an accuracy of x."""
    return [float(values["x"]) * epoch / 9 for epoch in range(1, 10)]


def tuned_x(trial: dict[str, Any]) -> float:
    return float(trial["TunedHyperParameters"]["x"])


def test_a_whole_search(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    response = bench.play()
    trials = bench.trials()
    best = max(trials, key=lambda trial: float(trial["TunedHyperParameters"]["x"]))
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert response["TrainingJobStatusCounters"] == {
        "Completed": 10,
        "InProgress": 0,
        "RetryableError": 0,
        "NonRetryableError": 0,
        "Stopped": 0,
    }
    assert response["ObjectiveStatusCounters"] == {"Succeeded": 10, "Pending": 0, "Failed": 0}
    assert response["BestTrainingJob"] == best
    assert best["FinalHyperParameterTuningJobObjectiveMetric"] == {
        "MetricName": "accuracy",
        "Value": float(best["TunedHyperParameters"]["x"]),
    }
    assert bench.training.most_at_once == 3
    assert [trial["TrainingJobName"][:10] for trial in trials] == [f"breeds-{n:03d}" for n in range(1, 11)]


def test_a_trial_is_a_training_job_with_static_and_tuned_hyperparameters(make_bench: MakeBench) -> None:
    checkpoint = {"CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints/"}, "Environment": {"A": "1"}}
    bench = make_bench(climbing, jobs=1, parallel=1, definition=checkpoint)
    bench.play()
    ((name, sent),) = bench.training.requests.items()
    (trial,) = bench.trials()
    assert sent["HyperParameters"] == {
        "epochs": "9",
        "x": trial["TunedHyperParameters"]["x"],
        "_tuning_objective_metric": "accuracy",
    }
    assert sent["CheckpointConfig"]["S3Uri"] == f"s3://bucket/checkpoints/{name}"
    described = bench.describe()["TrainingJobDefinition"]["StaticHyperParameters"]
    assert described == {"epochs": "9", "_tuning_objective_metric": "accuracy"}
    assert sent["Environment"] == {"A": "1"}
    assert "StaticHyperParameters" not in sent
    stored = bench.context.store.get("training-job", name)
    assert stored is not None
    assert stored["TuningJobArn"].endswith(f"hyper-parameter-tuning-job/{NAME}")


def test_counters_while_it_runs(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    bench.job.advance()
    response = bench.describe()
    assert response["HyperParameterTuningJobStatus"] == "InProgress"
    assert response["TrainingJobStatusCounters"]["InProgress"] == 3
    assert response["ObjectiveStatusCounters"]["Pending"] == 3
    assert "BestTrainingJob" not in response


def test_early_stopping_auto_stops_the_worse_than_median(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, jobs=12, parallel=1, TrainingJobEarlyStoppingType="Auto")
    response = bench.play()
    earlier: list[list[float]] = []
    for trial in bench.trials():
        reports = climbing(trial["TunedHyperParameters"])
        for epoch in range(1, 10):
            averages = sorted(sum(run[:epoch]) / epoch for run in earlier if len(run) >= epoch)
            middle = len(averages) // 2
            if averages and reports[epoch - 1] < (averages[middle] + averages[~middle]) / 2:
                assert trial["TrainingJobStatus"] == "Stopped"
                reports = reports[:epoch]
                break
        else:
            assert trial["TrainingJobStatus"] == "Completed"
        assert trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == pytest.approx(reports[-1])
        earlier.append(reports)
    assert 0 < response["TrainingJobStatusCounters"]["Stopped"] < 12
    assert response["HyperParameterTuningJobStatus"] == "Completed"


def test_hyperband_stops_most_of_the_work(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, strategy="Hyperband", jobs=40, parallel=4)
    response = bench.play()
    trials = bench.trials()
    assert response["TrainingJobStatusCounters"]["Stopped"] > 15
    finished = [t for t in trials if t["TrainingJobStatus"] == "Completed"]
    stopped = [t for t in trials if t["TrainingJobStatus"] == "Stopped"]
    assert fmean(map(tuned_x, finished)) > fmean(map(tuned_x, stopped)) + 0.2


def test_grid_runs_every_combination_once(make_bench: MakeBench) -> None:
    ranges = {
        "CategoricalParameterRanges": [
            {"Name": "x", "Values": ["0.1", "0.5", "0.9"]},
            {"Name": "optimizer", "Values": ["sgd", "adam"]},
        ]
    }
    bench = make_bench(climbing, strategy="Grid", jobs=None, ParameterRanges=ranges)
    response = bench.play()
    assert response["TrainingJobStatusCounters"]["Completed"] == 6
    points = {tuple(trial["TunedHyperParameters"].values()) for trial in bench.trials()}
    assert points == {(x, o) for x in ("0.1", "0.5", "0.9") for o in ("sgd", "adam")}


def test_a_stop_stops_the_trials_and_then_the_job(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    for _ in range(3):
        bench.job.advance()
        bench.training.tick()
    bench.stop()
    assert bench.describe()["HyperParameterTuningJobStatus"] == "Stopping"
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Stopped"
    assert response["TrainingJobStatusCounters"]["Stopped"] == 3
    assert response["ObjectiveStatusCounters"]["Succeeded"] == 3  # they had reported, and artifacts are kept
    with pytest.raises(ValidationError, match="status Stopped"):
        bench.stop()


def test_max_runtime_stops_the_job(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, jobs=700, limits={"MaxRuntimeInSeconds": 120})
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Stopped"
    assert 120 <= response["ConsumedResources"]["RuntimeInSeconds"] < 125
    assert response["TrainingJobStatusCounters"]["Stopped"] == 3
    assert response["TrainingJobStatusCounters"]["Completed"] > 20


def test_a_target_objective_completes_the_job(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, jobs=200, TuningJobCompletionCriteria={"TargetObjectiveMetricValue": 0.9})
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert response["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] >= 0.9
    assert sum(response["TrainingJobStatusCounters"].values()) < 100


def test_no_improvement_completes_the_job(make_bench: MakeBench) -> None:
    criteria = {"BestObjectiveNotImproving": {"MaxNumberOfTrainingJobsNotImproving": 5}}
    bench = make_bench(lambda _: [0.5], jobs=200, parallel=1, TuningJobCompletionCriteria=criteria)
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    assert response["TuningJobCompletionDetails"]["NumberOfTrainingJobsObjectiveNotImproving"] == 5
    assert response["TrainingJobStatusCounters"]["Completed"] == 6


def test_five_failures_without_a_success_fail_the_job(make_bench: MakeBench) -> None:
    response = make_bench(lambda _: None, jobs=50, parallel=1).play()
    assert response["HyperParameterTuningJobStatus"] == "Failed"
    assert response["FailureReason"].startswith("No training job succeeded after 5 attempts.")
    assert response["TrainingJobStatusCounters"]["NonRetryableError"] == 5
    assert response["ObjectiveStatusCounters"]["Failed"] == 5
    assert "BestTrainingJob" not in response


def test_no_objective_fails_the_job_and_says_why(make_bench: MakeBench) -> None:
    bench = make_bench(lambda _: [], jobs=3)
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Failed"
    assert response["FailureReason"].startswith("No objective metrics found after running 3 training jobs.")
    assert response["ObjectiveStatusCounters"] == {"Succeeded": 0, "Pending": 0, "Failed": 3}
    assert response["TrainingJobStatusCounters"]["Completed"] == 3
    assert bench.trials(SortBy="FinalObjectiveMetricValue") == []


def test_failed_trials_do_not_fail_the_job_and_are_never_best(make_bench: MakeBench) -> None:
    bench = make_bench(lambda values: None if float(values["x"]) > 0.5 else climbing(values), jobs=20)
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Completed"
    failed = bench.trials(StatusEquals="Failed")
    assert len(failed) == response["TrainingJobStatusCounters"]["NonRetryableError"] > 0
    assert failed[0]["FailureReason"] == "AlgorithmError: out of memory"
    assert float(response["BestTrainingJob"]["TunedHyperParameters"]["x"]) <= 0.5


def test_a_refused_training_job_is_a_failed_trial(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(climbing, jobs=2)

    def refuse(*_: Any, **__: Any) -> str:
        raise ValidationError("no such image")

    monkeypatch.setattr(bench.training, "create", refuse)
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Failed"
    assert [trial["FailureReason"] for trial in bench.trials()] == ["ClientError: no such image"] * 2


def test_a_restart_at_any_moment_changes_nothing(make_bench: MakeBench, tmp_path: Path) -> None:
    """Killed after every round and during launches, the search has the same result as without a crash."""
    calm = make_bench(climbing, strategy="Bayesian", jobs=12)
    calm.play()
    expected = [trial["TunedHyperParameters"] for trial in calm.trials()]

    store = Store(tmp_path / "other.sqlite")
    context = Context(Settings(tmp_path, tmp_path / "images.yaml"), store, clock=lambda: 5.0)
    store.create(TUNING_JOB.resource_type, NAME, new_document(context, request(strategy="Bayesian", jobs=12)))
    training = ScriptedTraining(context, climbing)
    crashing = _CrashesInCreate(training)
    for _ in range(1000):
        job = TuningJob(context, crashing, NAME)
        try:
            job.adopt()
            if job.advance():
                break
        except _CrashError:
            continue
        training.tick()
    bench = Bench(context, training, TuningJob(context, training, NAME), [5.0])
    assert [trial["TunedHyperParameters"] for trial in bench.trials()] == expected
    assert len(training.requests) == 12
    assert crashing.crashes > 5
    store.close()


class _CrashError(Exception):
    """The process dies here."""


@dataclass
class _CrashesInCreate:
    """Dies before every second creation, when the trial is recorded and its training job is not there."""

    training: ScriptedTraining
    crashes: int = 0
    calls: int = 0

    def check(self, request: dict[str, Any]) -> None:
        self.training.check(request)

    def create(self, request: dict[str, Any], *, tuning_job_arn: str | None = None) -> str:
        self.calls += 1
        if self.calls % 2:
            self.crashes += 1
            raise _CrashError
        return self.training.create(request, tuning_job_arn=tuning_job_arn)

    def stop_job(self, name: str) -> None:
        self.training.stop_job(name)


def test_a_stop_before_a_recorded_trial_started_leaves_it_out(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, parallel=1)
    bench.job._training = _CrashesInCreate(bench.training)
    with pytest.raises(_CrashError):
        bench.job.advance()
    bench.stop()
    bench.restart()
    response = bench.play()
    assert response["HyperParameterTuningJobStatus"] == "Stopped"
    assert bench.training.requests == {}


def test_many_jobs_ten_at_a_time(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, strategy="Bayesian", jobs=150, parallel=10)
    response = bench.play()
    assert response["TrainingJobStatusCounters"]["Completed"] == 150
    assert bench.training.most_at_once == 10
    assert float(response["BestTrainingJob"]["TunedHyperParameters"]["x"]) > 0.99


def test_listing_trials_sorts_filters_and_pages(make_bench: MakeBench) -> None:
    bench = make_bench(lambda values: climbing(values) if float(values["x"]) < 0.8 else [], jobs=15)
    bench.play()
    values = [
        trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        for trial in bench.trials(SortBy="FinalObjectiveMetricValue", SortOrder="Descending")
    ]
    assert values == sorted(values, reverse=True)
    assert 0 < len(values) < 15
    service = TuningJobs(bench.context, bench.training)
    first = service.list_training_jobs({"HyperParameterTuningJobName": NAME})
    second = service.list_training_jobs(
        {"HyperParameterTuningJobName": NAME, "NextToken": first["NextToken"]}
    )
    names = [
        trial["TrainingJobName"] for trial in first["TrainingJobSummaries"] + second["TrainingJobSummaries"]
    ]
    assert names == sorted(names)
    assert (len(first["TrainingJobSummaries"]), len(names)) == (10, 15)
    assert second["NextToken"] is None


def test_a_listed_time_range_includes_its_ends(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    created = bench.now[0]
    listed = TuningJobs(bench.context, bench.training).list_page
    for bounds in ({"CreationTimeAfter": created}, {"CreationTimeBefore": created}):
        (summary,) = listed(bounds)["HyperParameterTuningJobSummaries"]
        assert summary["HyperParameterTuningJobName"] == NAME
    assert listed({"CreationTimeAfter": created + 1})["HyperParameterTuningJobSummaries"] == []


def test_several_training_job_definitions_take_turns(context: Context) -> None:
    base = request(jobs=6, parallel=2)
    config = base["HyperParameterTuningJobConfig"]
    objective, ranges = config.pop("HyperParameterTuningJobObjective"), config.pop("ParameterRanges")
    definition = base.pop("TrainingJobDefinition") | {
        "TuningObjective": objective,
        "HyperParameterRanges": ranges,
    }
    base["TrainingJobDefinitions"] = [
        definition | {"DefinitionName": name} for name in ("resnet", "squeezenet")
    ]
    context.store.create(TUNING_JOB.resource_type, NAME, new_document(context, base))
    training = ScriptedTraining(context, climbing)
    bench = Bench(context, training, TuningJob(context, training, NAME), [0.0])
    response = bench.play()
    assert [trial["TrainingJobDefinitionName"] for trial in bench.trials()] == ["resnet", "squeezenet"] * 3
    assert response["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Type"] == "Maximize"


Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"jobs": 751}, "ResourceLimitExceeded", "is 750"),
        ({"parallel": 11}, "ResourceLimitExceeded", "is 10"),
        ({"jobs": None}, "ValidationException", "MaxNumberOfTrainingJobs is required"),
        (
            {"definition": {"AlgorithmSpecification": {"TrainingImage": "i", "TrainingInputMode": "File"}}},
            "ValidationException",
            "A metric is required for this hyperparameter tuning job objective",
        ),
        (
            {"definition": {"StaticHyperParameters": {"x": "1"}}},
            "ValidationException",
            "give each in one place",
        ),
        ({"strategy": "Grid"}, "ValidationException", "categorical hyperparameters only"),
        (
            {"strategy": "Hyperband", "TrainingJobEarlyStoppingType": "Auto"},
            "ValidationException",
            "must be Off with Strategy Hyperband",
        ),
        (
            {"strategy": "Hyperband", "definition": {"StaticHyperParameters": {}}},
            "ValidationException",
            "Hyperband needs MaxResource",
        ),
        (
            {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 1}}},
            "ValidationException",
            "needs Strategy Hyperband",
        ),
        (
            {
                "strategy": "Hyperband",
                "StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 5, "MaxResource": 4}},
            },
            "ValidationException",
            "MinResource",
        ),
        (
            {
                "ParameterRanges": {
                    "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "3"}]
                }
            },
            "ValidationException",
            r"combinations for the provided ranges \[3.0\] must be equal or greater .* \[10\]",
        ),
        (
            {"TuningJobCompletionCriteria": {"ConvergenceDetected": {"CompleteOnConvergence": "Enabled"}}},
            "ValidationException",
            "BestObjectiveNotImproving",
        ),
    ],
)
def test_requests_that_aws_refuses_are_refused(
    context: Context, changes: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        new_document(context, request(**changes))
    assert caught.value.code == code


def test_autotune_and_a_wrong_grid_size_are_refused(context: Context) -> None:
    with pytest.raises(ValidationError, match="Autotune"):
        new_document(context, request() | {"Autotune": {"Mode": "Enabled"}})
    ranges = {"CategoricalParameterRanges": [{"Name": "x", "Values": ["1", "2", "3"]}]}
    with pytest.raises(ValidationError, match=r"number of combinations \[3\]"):
        new_document(context, request(strategy="Grid", jobs=4, ParameterRanges=ranges))


# -- warm start ----------------------------------------------------------------------------------------------


def warm(kind: str = "IdenticalDataAndAlgorithm", *parents: str, **changes: Any) -> dict[str, Any]:
    return request(**changes) | {
        "HyperParameterTuningJobName": "child",
        "WarmStartConfig": {
            "WarmStartType": kind,
            "ParentHyperParameterTuningJobs": [
                {"HyperParameterTuningJobName": parent} for parent in parents or (NAME,)
            ],
        },
    }


def test_a_warm_start_takes_over_trials_and_the_overall_best(make_bench: MakeBench) -> None:
    bench = make_bench(climbing, strategy="Bayesian", jobs=30)
    parent = bench.play()
    child = new_document(bench.context, warm(strategy="Bayesian", jobs=2, parallel=1))
    bench.context.store.create(TUNING_JOB.resource_type, "child", child)
    job = TuningJob(bench.context, bench.training, "child")
    while not job.advance():
        bench.training.tick()
    response = TuningJobs(bench.context, bench.training).describe({"HyperParameterTuningJobName": "child"})
    overall = response["OverallBestTrainingJob"]
    own = response["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    inherited = parent["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    assert overall["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == max(own, inherited)
    assert own > 0.6  # a search that starts cold draws uniformly
    if inherited >= own:
        assert overall["TuningJobName"] == NAME


def test_transfer_learning_may_change_data_and_has_no_overall_best(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    bench.play()
    other_image = {
        "AlgorithmSpecification": request()["TrainingJobDefinition"]["AlgorithmSpecification"]
        | {"TrainingImage": "training:2"}
    }
    document = new_document(bench.context, warm("TransferLearning", definition=other_image))
    assert document["_inherited_best"] is None
    assert len(document["_inherited"]) == 10
    with pytest.raises(ValidationError, match="Only the following fields in TrainingJobDefinition"):
        new_document(bench.context, warm(definition=other_image))


def test_a_static_hyperparameter_may_become_tunable(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    bench.play()
    ranges = {"IntegerParameterRanges": [{"Name": "epochs", "MinValue": "5", "MaxValue": "20"}]}
    child = warm(ParameterRanges=ranges, definition={"StaticHyperParameters": {"x": "0.5"}})
    document = new_document(bench.context, child)
    assert {trial["values"]["epochs"] for trial in document["_inherited"]} == {"9"}


@pytest.mark.parametrize(
    ("child", "message"),
    [
        (warm("IdenticalDataAndAlgorithm", "nobody"), "'nobody' does not exist"),
        (
            warm(HyperParameterTuningJobObjective={"Type": "Minimize", "MetricName": "accuracy"}),
            "objective metric must be the same",
        ),
        (
            warm(definition={"StaticHyperParameters": {"epochs": "9", "seed": "1"}}),
            r"names? is not the same.*seed",
        ),
        (warm(definition={"Environment": {"A": "1"}}), "environment"),
    ],
)
def test_a_warm_start_that_aws_refuses_is_refused(
    make_bench: MakeBench, child: dict[str, Any], message: str
) -> None:
    bench = make_bench(climbing)
    bench.play()
    with pytest.raises(ValidationError, match=message):
        new_document(bench.context, child)


def test_a_parent_must_have_finished_and_counts_against_the_limit(make_bench: MakeBench) -> None:
    bench = make_bench(climbing)
    bench.job.advance()
    with pytest.raises(ValidationError, match="'breeds' is InProgress"):
        new_document(bench.context, warm())
    bench.play()
    with pytest.raises(ApiError, match="the parents have 10") as caught:
        new_document(bench.context, warm(jobs=745))
    assert caught.value.code == "ResourceLimitExceeded"
