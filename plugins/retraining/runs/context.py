"""Where a run is: its name, and its folder in S3 beside what a pipeline's runs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retraining.aws.clients import Aws, bucket_of
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.runs.naming import run_name

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol as DagRun


@dataclass(frozen=True)
class RunLocation:
    """Bucket, pipeline and name of a run. URIs have no slash at their end."""

    bucket: str
    pipeline: str
    run: str

    @property
    def shared(self) -> str:
        """Folder of all runs of the pipeline: `retraining/<pipeline>`, a key prefix."""
        return f"retraining/{self.pipeline}"

    @property
    def output(self) -> str:
        """URI of the run's folder."""
        return f"s3://{self.bucket}/{self.shared}/{self.run}"

    @property
    def dataset_report(self) -> str:
        """URI of the page about the run's check of the dataset."""
        return f"{self.output}/dataset/report.html"

    def shared_uri(self, name: str) -> str:
        """URI of something that the runs share."""
        return f"s3://{self.bucket}/{self.shared}/{name}"


@dataclass(frozen=True)
class RunContext:
    """What a task of a run begins with: the form's values, the services, and the run's location."""

    settings: RunSettings
    aws: Aws
    location: RunLocation
    run_id: str

    @classmethod
    def of(cls, pipeline: Pipeline, params: Mapping[str, Any], dag_run: DagRun) -> RunContext:
        """Raises ParametersError for values that contradict each other."""
        settings, aws = RunSettings.from_params(params), Aws()
        return cls(settings, aws, location_of(pipeline, settings.bucket, aws, dag_run), dag_run.run_id)


def location_of(pipeline: Pipeline, bucket: str | None, aws: Aws, dag_run: DagRun) -> RunLocation:
    """The run's location, in the bucket that is named or, for None, in SageMaker's default one."""
    name = run_name(pipeline.slug, dag_run.run_id, dag_run.run_after)
    return RunLocation(bucket_of(aws, bucket), pipeline.name, name)
