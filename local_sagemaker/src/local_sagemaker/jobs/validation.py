"""Checks of all jobs' Create operations: missing data and buckets, repeated names, several instances."""

from __future__ import annotations

from collections import Counter

from local_sagemaker.channels import Channel, ChannelError, placements, s3_uri
from local_sagemaker.errors import ValidationError
from local_sagemaker.s3.objects import BucketMissingError, ObjectMissingError, Objects


def check_unique(names: list[str], member: str) -> None:
    """Raises ValidationError for a repeated name."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValidationError(f"{member} has the name {repeated[0]!r} twice; names must be unique")


def check_one_instance(count: int, member: str) -> None:
    """Raises ValidationError for any count but 1."""
    if count != 1:
        raise ValidationError(f"{member} {count} is not supported here: this machine is one instance. Use 1")


def check_bucket(uri: str, member: str, objects: Objects) -> None:
    """Raises ValidationError for an invalid S3 URI or a bucket that does not exist."""
    try:
        objects.list(uri)
    except ValueError as error:
        raise ValidationError(f"{member}: {error}") from error
    except BucketMissingError as error:
        raise ValidationError(f"{member} {uri!r}: {error}") from error


def check_data(channel: Channel, label: str, objects: Objects, role: str, region: str) -> None:
    """Raises ValidationError for a channel without objects, or with objects that cannot be placed."""
    try:
        placements(channel, objects)
    except (ObjectMissingError, BucketMissingError) as error:
        raise ValidationError(_no_objects(s3_uri(channel), role, region, error)) from error
    except (ChannelError, ValueError) as error:
        raise ValidationError(f"{label}: {error}") from error


def _no_objects(uri: str, role: str, region: str, error: Exception) -> str:
    """AWS's message for missing input, with the reason."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the '
        "bucket exists "
        f"in the selected region ({region}), that objects exist under that S3 prefix, and that the "
        f'role "{role}" has "s3:ListBucket" permissions on bucket "{bucket}". ({error})'
    )
