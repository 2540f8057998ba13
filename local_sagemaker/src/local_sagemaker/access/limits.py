"""How large a request's body may be. A larger one is refused before it is read."""

from __future__ import annotations

from local_sagemaker.access.request import AddressedRequest, RefusedError

_MEBIBYTE = 1024 * 1024
_OBJECT = 5 * 1024**3  # S3's limit for one PUT; it goes to a file while it arrives
_FORM = 64 * _MEBIBYTE  # a browser's upload, which moto holds in memory
_INVOCATION = 25 * _MEBIBYTE  # quota "payload size" of a real-time endpoint
_DOCUMENT = 8 * _MEBIBYTE  # more than any JSON or XML that these APIs take
_OF_OBJECTS = {"partNumber", "uploadId", "x-id"}  # others name a document about the object


def largest_body(request: AddressedRequest) -> int:
    """In bytes."""
    if not request.is_s3:
        return _INVOCATION if request.path.startswith("/endpoints/") else _DOCUMENT
    names = {name for name, _ in request.parameters if not name.lower().startswith("x-amz-")}
    if request.method == "PUT" and not names - _OF_OBJECTS - {"AWSAccessKeyId", "Signature", "Expires"}:
        return _OBJECT
    return _FORM if request.header("content-type").startswith("multipart/form-data") else _DOCUMENT


def too_large(request: AddressedRequest, limit: int) -> RefusedError:
    """As S3 and the JSON services say it."""
    text = f"The body of {request.method} {request.path[:200]} may have at most {limit} bytes."
    return RefusedError(text, "EntityTooLarge", 400 if request.is_s3 else 413)


def check_declared(request: AddressedRequest, limit: int) -> None:
    """Raises RefusedError where Content-Length says that the body is too large."""
    declared = request.header("content-length")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(request, limit)
