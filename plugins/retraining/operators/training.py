"""The training job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator

from retraining.aws.responses import as_json
from retraining.jobs.followers import TrainingFollower
from retraining.jobs.kinds import TRAINING
from retraining.operators.jobs import JobOperator
from retraining.planning.training import with_best_trial
from retraining.runs.results import TrainingResult, TuningResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef


class TrainingOperator(JobOperator[TrainingResult], SageMakerTrainingOperator):
    """Runs a training job with the best trial's hyperparameters, if `tuning` has one.

    The log shows the script's own lines, SageMaker's stages, and every change of a Debugger rule.
    """

    custom_operator_name = "SageMakerTrainingOperator"
    template_fields: Sequence[str] = (*SageMakerTrainingOperator.template_fields, "tuning")
    kind = TRAINING
    console_page = "jobs"
    follower = TrainingFollower

    def __init__(
        self,
        *,
        config: CreateTrainingJobRequestTypeDef,
        tuning: TuningResult | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config, **kwargs)
        self.tuning = tuning

    def completed(self, planned: CreateTrainingJobRequestTypeDef) -> CreateTrainingJobRequestTypeDef:
        return with_best_trial(planned, self.tuning)

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_training_job(dict(request), wait_for_completion=False, print_log=False)

    def result_of(self, description: Mapping[str, Any]) -> TrainingResult:
        return {
            "job": description["TrainingJobName"],
            "arn": description["TrainingJobArn"],
            "status": description["TrainingJobStatus"],
            "seconds": TRAINING.seconds(description),
            "billable_seconds": description.get("BillableTimeInSeconds"),
            "metrics": {m["MetricName"]: m["Value"] for m in description.get("FinalMetricDataList", [])},
            "hyperparameters": dict(description["HyperParameters"]),
            "model_artifact": description["ModelArtifacts"]["S3ModelArtifacts"],
            "output": description["OutputDataConfig"]["S3OutputPath"].rstrip("/"),
            "Training": as_json(description),
        }
