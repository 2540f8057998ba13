"""The evaluation of challenger and champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator

from retraining.evaluation.champion import find_candidates
from retraining.jobs.followers import ProcessingFollower
from retraining.jobs.kinds import PROCESSING
from retraining.operators.jobs import JobOperator
from retraining.planning.evaluation import with_models
from retraining.runs.results import Candidates, EvaluationResult, TrainingResult

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateProcessingJobRequestTypeDef


class EvaluationOperator(JobOperator[EvaluationResult], SageMakerProcessingOperator):
    """Runs the processing job that compares the model of `training` with the one that `endpoint` serves.

    `package_group` is the registry's group of the pipeline. The log shows the script's own lines.
    """

    custom_operator_name = "SageMakerProcessingOperator"
    template_fields: Sequence[str] = (*SageMakerProcessingOperator.template_fields, "training")
    kind = PROCESSING
    console_page = "processing-jobs"
    follower = ProcessingFollower
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

    def saved(self) -> dict[str, Any]:
        return {"candidates": self._candidates}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Find the candidates, but only once: what the endpoint serves may change while the job runs."""
        challenger = self.training["model_artifact"]
        found: Candidates | None = saved.get("candidates")
        if found is None:
            found = find_candidates(challenger, self.endpoint, self.package_group, self.aws)
        self._candidates = found
        super().restore(saved)

    def completed(self, planned: CreateProcessingJobRequestTypeDef) -> CreateProcessingJobRequestTypeDef:
        artifacts = {"challenger": self.training["model_artifact"]}
        if champion := self._candidates["champion"]:
            artifacts["champion"] = champion["artifact"]
        return with_models(planned, artifacts)

    def create(self, request: Mapping[str, Any]) -> None:
        self.hook.create_processing_job(dict(request), wait_for_completion=False)

    def result_of(self, description: Mapping[str, Any]) -> EvaluationResult:
        return {
            **self._candidates,
            "job": description["ProcessingJobName"],
            "status": description["ProcessingJobStatus"],
            "seconds": PROCESSING.seconds(description),
            "output": description["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3Uri"],
        }
