"""The tuning job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTuningOperator
from airflow.sdk.exceptions import AirflowSkipException

from retraining.errors import JobFailedError
from retraining.jobs.followers import TuningFollower, failures_of, trial_line, trials_of
from retraining.jobs.kinds import TUNING, trial_of
from retraining.operators.jobs import JobOperator
from retraining.runs.results import TuningResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateHyperParameterTuningJobRequestTypeDef


class TuningOperator(JobOperator[TuningResult], SageMakerTuningOperator):
    """Runs a hyperparameter tuning job, with a line in the log for every change of a trial.

    Skipped where `config` is None.
    """

    custom_operator_name = "SageMakerTuningOperator"
    kind = TUNING
    follower = TuningFollower
    console_page = "hyper-tuning-jobs"

    def __init__(self, *, config: CreateHyperParameterTuningJobRequestTypeDef | None, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)

    def completed(self, planned: Any) -> Any:
        if planned is None:
            raise AirflowSkipException("This run skips tuning.")
        return planned

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_tuning_job(dict(request), wait_for_completion=False)

    def failure(self, description: Mapping[str, Any]) -> str:
        failures = failures_of(trials_of(self.aws, description[TUNING.name]))
        return " | ".join(text for text in (super().failure(description), failures) if text)

    def result_of(self, description: Mapping[str, Any]) -> TuningResult:
        name = description[TUNING.name]
        # after a warm start on the same data, the best of both searches
        best = description.get("OverallBestTrainingJob") or description.get("BestTrainingJob")
        if not best:
            failures = failures_of(trials_of(self.aws, name))
            raise JobFailedError(
                f"The tuning job {name} completed without a best trial: no trial reported its objective. "
                f"{failures or 'Read the logs of the trials.'}"
            )
        config = description["HyperParameterTuningJobConfig"]
        result: TuningResult = {
            "job": name,
            "status": description[TUNING.status],
            "seconds": TUNING.seconds(description),
            "objective": config["HyperParameterTuningJobObjective"]["MetricName"],
            "trials": trials_of(self.aws, name),
            "best": trial_of(best),
        }
        self.log.info("The best of %d trials: %s", len(result["trials"]), trial_line(result["best"]))
        return result
