"""The tuning job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTuningOperator
from airflow.sdk.exceptions import AirflowSkipException

from retraining.errors import JobFailedError
from retraining.jobs.kinds import TUNING, trial_of
from retraining.operators.jobs import JobOperator
from retraining.runs.results import Trial, TuningResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateHyperParameterTuningJobRequestTypeDef


class TuningOperator(JobOperator[TuningResult], SageMakerTuningOperator):
    """Runs a hyperparameter tuning job, with a line in the log for every change of a trial.

    Skipped where `config` is None.
    """

    custom_operator_name = "SageMakerTuningOperator"
    kind = TUNING
    console_page = "hyper-tuning-jobs"

    def __init__(self, *, config: CreateHyperParameterTuningJobRequestTypeDef | None, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._counters: Any = None
        self._shown: dict[str, str] = {}

    def completed(self, planned: Any) -> Any:
        if planned is None:
            raise AirflowSkipException("This run skips tuning.")
        return planned

    def describe(self, name: str) -> Mapping[str, Any]:
        description: Mapping[str, Any] = self.hook.describe_tuning_job(name)
        return description

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_tuning_job(dict(request), wait_for_completion=False)

    def stop(self, name: str) -> None:
        self.client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)

    def show(self, description: Mapping[str, Any]) -> None:
        counters = (description["TrainingJobStatusCounters"], description["ObjectiveStatusCounters"])
        if counters == self._counters:
            return
        self._counters = counters
        for trial in self._trials(description[TUNING.name]):
            line = trial_line(trial)
            if self._shown.get(trial["name"]) != line:
                self._shown[trial["name"]] = line
                self.log.info("%s", line)

    def result_of(self, description: Mapping[str, Any]) -> TuningResult:
        name = description[TUNING.name]
        # after a warm start on the same data, the best of both searches
        best = description.get("OverallBestTrainingJob") or description.get("BestTrainingJob")
        if not best:
            raise JobFailedError(
                f"The tuning job {name} completed without a best trial: no trial reported its objective. "
                "Read the trials' logs."
            )
        config = description["HyperParameterTuningJobConfig"]
        result: TuningResult = {
            "job": name,
            "status": description[TUNING.status],
            "seconds": TUNING.seconds(description),
            "objective": config["HyperParameterTuningJobObjective"]["MetricName"],
            "trials": self._trials(name),
            "best": trial_of(best),
        }
        self.log.info("The best of %d trials: %s", len(result["trials"]), trial_line(result["best"]))
        return result

    def _trials(self, name: str) -> list[Trial]:
        pages = self.client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
            HyperParameterTuningJobName=name, SortBy="CreationTime", SortOrder="Ascending"
        )
        return [trial_of(summary) for page in pages for summary in page["TrainingJobSummaries"]]


def trial_line(trial: Trial) -> str:
    """A trial in one line of the log."""
    values = " ".join(f"{name}={_short(value)}" for name, value in sorted(trial["hyperparameters"].items()))
    objective = "" if trial["objective"] is None else f" objective={trial['objective']:.4f}"
    duration = "" if trial["seconds"] is None else f" in {trial['seconds']:.0f} s"
    return f"Trial {trial['name']}: {trial['status']}{objective} {values}{duration}"


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value
