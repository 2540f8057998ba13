"""How large a request's body may be, decided before it is read.

An object in one request: https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html (5 GiB).
CloudWatch and Logs take 1 MB on AWS. Documents of S3 stay below 4 MiB: a thousand keys to delete,
ten thousand parts of an upload.
"""

from __future__ import annotations

from local_sagemaker.access.request import AddressedRequest, RefusedError

_MIB = 1024 * 1024
_DOCUMENT = 4 * _MIB
_INVOCATION = 32 * _MIB  # more than the gateway's own limit, which names the endpoint's quota
_OBJECT = 5 * 1024 * _MIB
_PARTS_OF_OBJECTS = {"acl", "legal-hold", "retention", "tagging"}  # parameters of documents about an object


def largest_body(request: AddressedRequest) -> int:
    """The most bytes that the request's body may have."""
    if request.is_json:
        is_invocation = not request.all("x-amz-target") and request.path.startswith("/endpoints/")
        return _INVOCATION if is_invocation else _DOCUMENT
    if request.method != "PUT" or not request.is_s3:
        return _DOCUMENT
    names_a_key = bool(request.virtual_bucket) or "/" in request.path.removeprefix("/").rstrip("/")
    about = {name for name, _ in request.parameters} & _PARTS_OF_OBJECTS
    return _OBJECT if names_a_key and not about else _DOCUMENT


def check_declared_length(request: AddressedRequest, largest: int) -> None:
    """Raises RefusedError where Content-Length is not one number or says more than `largest` bytes."""
    declared = request.header("content-length")
    if declared and not (declared.isascii() and declared.isdecimal()):
        raise RefusedError(f"Content-Length is {declared!r}, not a number.", "InvalidArgument", 400)
    if declared and int(declared[:20]) > largest:
        raise too_large(request, largest)


def too_large(request: AddressedRequest, largest: int) -> RefusedError:
    """The error that AWS's service gives: 400 of S3, 413 of the others."""
    message = f"The request's body is too large: at most {largest} bytes are taken."
    return RefusedError(message, "EntityTooLarge", 400 if request.is_s3 else 413)
