"""Tags of SageMaker's resources."""

from __future__ import annotations

from retraining.aws.clients import Aws


def tags_of(aws: Aws, arn: str) -> dict[str, str]:
    """All tags of a resource."""
    pages = aws.sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
    return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}
