"""What S3 asks of a bucket's name and policy, and moto does not."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Set
from wsgiref.types import WSGIEnvironment

from local_sagemaker.s3.digests import InvalidRequestError

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_NAME = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_bucket(environ: WSGIEnvironment, bucket: str, parameters: Set[str]) -> None:
    """Look at a PUT of a bucket or its policy. Raises InvalidRequestError."""
    if environ["REQUEST_METHOD"] != "PUT":
        return
    if not parameters and not is_bucket_name(bucket):
        text = f"The name {bucket!r} is not valid: 3 to 63 lower-case letters, digits, hyphens and periods."
        raise InvalidRequestError("InvalidBucketName", text)
    if "policy" in parameters:
        body = environ["wsgi.input"]
        _check_policy(body.read())
        body.seek(0)


def is_bucket_name(name: str) -> bool:
    if not _NAME.fullmatch(name):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def _check_policy(body: bytes) -> None:
    try:
        policy = json.loads(body)
    except (ValueError, RecursionError) as error:
        text = f"Policies must be valid JSON and the first byte must be '{{': {error}"
        raise InvalidRequestError("MalformedPolicy", text) from error
    if not isinstance(policy, dict) or not policy.get("Statement"):
        raise InvalidRequestError("MalformedPolicy", "Missing required field Statement")
