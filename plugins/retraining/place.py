"""Where a run's things lie in S3: one folder a run, beside what the runs of a pipeline share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from retraining.aws import Aws, bucket_of
from retraining.form import RunSettings
from retraining.names import run_name
from retraining.pipeline import Pipeline


@dataclass(frozen=True)
class Place:
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

    def shared_uri(self, name: str) -> str:
        """URI of something that the runs share."""
        return f"s3://{self.bucket}/{self.shared}/{name}"


def place_of(pipeline: Pipeline, settings: RunSettings, aws: Aws, run_id: str, when: datetime) -> Place:
    """The place of the DAG run `run_id`, which is for the time `when`."""
    name = run_name(pipeline.slug, run_id, when)
    return Place(bucket_of(aws, settings.bucket), pipeline.name, name)
