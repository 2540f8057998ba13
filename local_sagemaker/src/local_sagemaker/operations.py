"""Every operation of the SageMaker API that this runtime has, and the services behind them.

To add one, write a method that takes the request and returns the response (both as the service model has
them, see `protocol`), and name it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from local_sagemaker.aws_services import AwsServices
from local_sagemaker.context import Context, Operation, Service
from local_sagemaker.hosting.service import Hosting
from local_sagemaker.jobs.supervisor import Services
from local_sagemaker.processing.jobs import ProcessingJobs
from local_sagemaker.registry.service import ModelRegistry
from local_sagemaker.s3.objects import Objects
from local_sagemaker.tags import Tags
from local_sagemaker.training.jobs import TrainingJobs
from local_sagemaker.tuning.jobs import TuningJobs


@dataclass(frozen=True)
class SageMaker:
    """All services of one runtime."""

    aws: AwsServices
    training: TrainingJobs
    tuning: TuningJobs
    processing: ProcessingJobs
    registry: ModelRegistry
    hosting: Hosting
    tags: Tags

    @classmethod
    def of(cls, context: Context) -> SageMaker:
        """Raises ImagesFileError."""
        aws = AwsServices(context)
        jobs = Services.of(context, Objects(aws.s3))
        training = TrainingJobs(jobs)
        registry = ModelRegistry(context, jobs.objects, jobs.images)
        return cls(
            aws,
            training,
            TuningJobs(context, training),
            ProcessingJobs(jobs),
            registry,
            Hosting(context, jobs.objects, jobs.images, registry),
            Tags(context),
        )

    def services(self) -> list[Service]:
        """Those with something to resume and to close, in the order in which they resume."""
        return [self.aws, self.training, self.tuning, self.processing, self.hosting]

    def operations(self) -> Mapping[str, Operation]:
        training, tuning, processing, tags = self.training, self.tuning, self.processing, self.tags
        groups, packages = self.registry.groups, self.registry.packages
        models, configs, endpoints = self.hosting.models, self.hosting.configs, self.hosting.endpoints
        return {
            "CreateTrainingJob": training.create,
            "DescribeTrainingJob": training.describe,
            "ListTrainingJobs": training.list_page,
            "StopTrainingJob": training.stop,
            "UpdateTrainingJob": training.update,
            "DeleteTrainingJob": training.delete,
            "CreateHyperParameterTuningJob": tuning.create,
            "DescribeHyperParameterTuningJob": tuning.describe,
            "ListHyperParameterTuningJobs": tuning.list_page,
            "ListTrainingJobsForHyperParameterTuningJob": tuning.list_training_jobs,
            "StopHyperParameterTuningJob": tuning.stop,
            "DeleteHyperParameterTuningJob": tuning.delete,
            "CreateProcessingJob": processing.create,
            "DescribeProcessingJob": processing.describe,
            "ListProcessingJobs": processing.list_page,
            "StopProcessingJob": processing.stop,
            "DeleteProcessingJob": processing.delete,
            "CreateModelPackageGroup": groups.create,
            "DescribeModelPackageGroup": groups.describe,
            "ListModelPackageGroups": groups.list_page,
            "DeleteModelPackageGroup": groups.delete,
            "CreateModelPackage": packages.create,
            "DescribeModelPackage": packages.describe,
            "BatchDescribeModelPackage": packages.describe_many,
            "ListModelPackages": packages.list_page,
            "UpdateModelPackage": packages.update,
            "DeleteModelPackage": packages.delete,
            "CreateModel": models.create,
            "DescribeModel": models.describe,
            "ListModels": models.list_page,
            "DeleteModel": models.delete,
            "CreateEndpointConfig": configs.create,
            "DescribeEndpointConfig": configs.describe,
            "ListEndpointConfigs": configs.list_page,
            "DeleteEndpointConfig": configs.delete,
            "CreateEndpoint": endpoints.create,
            "DescribeEndpoint": endpoints.describe,
            "ListEndpoints": endpoints.list_page,
            "UpdateEndpoint": endpoints.update,
            "UpdateEndpointWeightsAndCapacities": endpoints.scale,
            "DeleteEndpoint": endpoints.delete,
            "AddTags": tags.add,
            "ListTags": tags.list_tags,
            "DeleteTags": tags.delete,
        }
