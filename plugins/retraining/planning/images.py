"""The images of a run: what the pipeline file names, else AWS's."""

from __future__ import annotations

from retraining.aws.images import default_image
from retraining.planning.common import PlannedRun


def training_image(run: PlannedRun, instance_type: str) -> str:
    """URI of the image that training and evaluation run in.

    Raises PlanError where AWS has none for the region or the instance type's processor.
    """
    return run.pipeline.job.image_uri or default_image("training", run.region, instance_type)


def serving_image(run: PlannedRun) -> str:
    """URI of the endpoint's image.

    Raises PlanError where AWS has none for the region or the instance type's processor.
    """
    instance_type = run.settings.endpoint_instance_type
    return run.pipeline.endpoint.image_uri or default_image("serving", run.region, instance_type)
