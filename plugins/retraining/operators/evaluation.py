"""The evaluation of challenger and champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator

from retraining.evaluation.champion import find_candidates
from retraining.jobs.kinds import PROCESSING
from retraining.jobs.logs import PROCESSING_JOBS
from retraining.operators.jobs import LoggedJobOperator
from retraining.planning.evaluation import with_models
from retraining.runs.results import Candidates, EvaluationResult, TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateProcessingJobRequestTypeDef


class EvaluationOperator(LoggedJobOperator[EvaluationResult], SageMakerProcessingOperator):
    """Runs the processing job that compares the model of `training` with the one that `endpoint` serves.

    `package_group` is the registry's group of the pipeline. The log shows the script's own lines.
    """

    custom_operator_name = "SageMakerProcessingOperator"
    template_fields: Sequence[str] = (*SageMakerProcessingOperator.template_fields, "training")
    kind = PROCESSING
    console_page = "processing-jobs"
    log_group = PROCESSING_JOBS
    _candidates: Candidates

    def __init__(
        self,
        *,
        config: CreateProcessingJobRequestTypeDef,
        training: TrainingResult,
        endpoint: str,
        package_group: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(config=config, multiple_outputs=True, **kwargs)
        self.training = training
        self.endpoint = endpoint
        self.package_group = package_group

    def completed(self, planned: CreateProcessingJobRequestTypeDef) -> CreateProcessingJobRequestTypeDef:
        challenger = self.training["model_artifact"]
        self._candidates = find_candidates(challenger, self.endpoint, self.package_group, self.aws)
        artifacts = {"challenger": challenger}
        if champion := self._candidates["champion"]:
            artifacts["champion"] = champion["artifact"]
        return with_models(planned, artifacts)

    def describe(self, name: str) -> Mapping[str, Any]:
        description: Mapping[str, Any] = self.hook.describe_processing_job(name)
        return description

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_processing_job(dict(request), wait_for_completion=False)

    def stop(self, name: str) -> None:
        self.client.stop_processing_job(ProcessingJobName=name)

    def result_of(self, description: Mapping[str, Any]) -> EvaluationResult:
        return {
            **self._candidates,
            "job": description["ProcessingJobName"],
            "status": description["ProcessingJobStatus"],
            "seconds": PROCESSING.seconds(description),
            "output": description["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"],
        }
