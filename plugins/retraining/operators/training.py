"""The training job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator

from retraining.aws.responses import as_json
from retraining.jobs.debugger_rules import RuleState, rule_states, show_changes
from retraining.jobs.kinds import TRAINING
from retraining.jobs.logs import TRAINING_JOBS
from retraining.operators.jobs import LoggedJobOperator
from retraining.planning.training import with_best_trial
from retraining.runs.results import TrainingResult, TuningResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef


class TrainingOperator(LoggedJobOperator[TrainingResult], SageMakerTrainingOperator):
    """Runs a training job with the best trial's hyperparameters, if `tuning` has one.

    The log shows the script's own lines, SageMaker's stages, and every change of a Debugger rule.
    """

    custom_operator_name = "SageMakerTrainingOperator"
    template_fields: Sequence[str] = (*SageMakerTrainingOperator.template_fields, "tuning")
    kind = TRAINING
    console_page = "jobs"
    log_group = TRAINING_JOBS

    def __init__(
        self,
        *,
        config: CreateTrainingJobRequestTypeDef,
        tuning: TuningResult | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config, **kwargs)
        self.tuning = tuning
        self._transitions = 0
        self._rules: dict[str, RuleState] = {}

    def completed(self, planned: CreateTrainingJobRequestTypeDef) -> CreateTrainingJobRequestTypeDef:
        return with_best_trial(planned, self.tuning)

    def describe(self, name: str) -> Mapping[str, Any]:
        description: Mapping[str, Any] = self.hook.describe_training_job(name)
        return description

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_training_job(dict(request), wait_for_completion=False, print_log=False)

    def stop(self, name: str) -> None:
        self.client.stop_training_job(TrainingJobName=name)

    def show(self, description: Mapping[str, Any]) -> None:
        super().show(description)
        transitions = description.get("SecondaryStatusTransitions", [])
        for transition in transitions[self._transitions :]:
            self.log.info("[SageMaker] %s: %s", transition["Status"], transition.get("StatusMessage", ""))
        self._transitions = len(transitions)
        self._rules = show_changes(rule_states(description), self._rules, self.log.log)

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
