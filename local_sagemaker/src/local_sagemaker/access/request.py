"""A request before it is routed: to whom it is addressed, and how its service says no."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from starlette.types import Scope

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/?#@\s]+)(?::(\d{1,5}))?")
_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,\s]+/\d{8}/[\w-]+/([\w-]+)/aws4_request,[^/]*")
HEALTH_PATH = "/_local/health"


class RefusedError(Exception):
    """The request is refused: `code` is S3's error code, `status` the HTTP status, the text for the user."""

    def __init__(self, message: str, code: str = "AccessDenied", status: int = 403) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status


_JSON_CODES = {  # of services other than S3, where they differ
    "AccessDenied": "AccessDeniedException",
    "EntityTooLarge": "RequestEntityTooLargeException",
    "InvalidAccessKeyId": "UnrecognizedClientException",
    "RequestTimeTooSkewed": "InvalidSignatureException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
}


@dataclass(frozen=True)
class AddressedRequest:
    """What a request says about itself.

    `headers` are as received, names in lower case. `bases` are the host names, beside this machine's own,
    that the server answers to. `path` is undecoded and without the query.
    """

    method: str
    path: str
    query: str
    scheme: str
    headers: Sequence[tuple[str, str]]
    bases: frozenset[str]

    @classmethod
    def of(cls, scope: Scope, bases: Iterable[str]) -> AddressedRequest:
        return cls(
            scope["method"],
            scope["raw_path"].decode("latin1"),
            scope["query_string"].decode("latin1"),
            scope["scheme"],
            [(name.decode("latin1").lower(), _text(value)) for name, value in scope["headers"]],
            frozenset(base.lower() for base in bases),
        )

    def all(self, name: str) -> list[str]:
        """The values of a header, in their order."""
        return [value for found, value in self.headers if found == name]

    def header(self, name: str) -> str:
        """A header's value; empty text where it is missing. Raises RefusedError for more than one."""
        values = self.all(name)
        if len(values) > 1:
            raise RefusedError(
                f"The request has {len(values)} headers {name}: send one.", "InvalidRequest", 400
            )
        return values[0] if values else ""

    @cached_property
    def parameters(self) -> list[tuple[str, str]]:
        """The query's parameters, decoded, in their order."""
        return parse_qsl(self.query, keep_blank_values=True)

    def parameter(self, name: str) -> str:
        """A parameter's value; empty text where it is missing. Raises RefusedError for more than one."""
        values = [value for found, value in self.parameters if found == name]
        if len(values) > 1:
            raise RefusedError(
                f"The query has {len(values)} parameters {name}: send one.", "InvalidRequest", 400
            )
        return values[0] if values else ""

    @property
    def host(self) -> str:
        """The Host header in lower case; empty text where there is none or more than one."""
        values = self.all("host")
        return values[0].lower() if len(values) == 1 else ""

    @cached_property
    def host_name(self) -> str:
        """The host's name or address without port, or empty text where the header is not a host."""
        found = _HOST.fullmatch(self.host)
        return found[1].removesuffix(".") if found else ""

    @cached_property
    def virtual_bucket(self) -> str:
        """The bucket of an S3 virtual host (`bucket.localhost`), or empty text."""
        if self._is_base(self.host_name):
            return ""
        names = self.host_name.split(".")
        for position in range(1, len(names)):
            bucket, base = ".".join(names[:position]), ".".join(names[position:])
            if self._is_base(base) and _BUCKET.fullmatch(bucket):
                return bucket
        return ""

    @property
    def is_for_this_server(self) -> bool:
        """Whether the host is loopback, a configured name, or an S3 virtual host of one of these."""
        return self._is_base(self.host_name) or bool(self.virtual_bucket)

    def _is_base(self, name: str) -> bool:
        return name == "localhost" or name in self.bases or _is_loopback(name)

    @property
    def is_json(self) -> bool:
        """Whether the service that is addressed responds with JSON: SageMaker, its runtime, Logs."""
        ours = not self.virtual_bucket and self.path.startswith(("/endpoints/", "/_local/"))
        return bool(self.all("x-amz-target")) or ours

    @property
    def is_s3(self) -> bool:
        return not self.is_json and self.signing_service == "s3"

    @property
    def signing_service(self) -> str:
        """The service that the request is signed for in its header: `s3` if in none, empty text if unclear.

        moto chooses the service by this header, too, and reads it more generously.
        """
        authorizations = self.all("authorization")
        if not authorizations:
            return "s3"
        found = _AUTHORIZATION.fullmatch(", ".join(authorizations))
        return found[1] if found else ""

    @property
    def bucket(self) -> str:
        """The bucket of an S3 request; empty text where it names none."""
        return self.virtual_bucket or unquote(self.path.removeprefix("/").partition("/")[0])

    @property
    def is_health(self) -> bool:
        return self.method == "GET" and self.path == HEALTH_PATH and not self.virtual_bucket

    @property
    def is_page_of_s3(self) -> bool:
        """Whether it reads S3: a GET whose path names a bucket and whose query calls no other service."""
        calls = any(name in {"Action", "Version"} for name, _ in self.parameters)
        named = _BUCKET.fullmatch(self.bucket) is not None
        return self.method == "GET" and self.is_s3 and named and not calls

    def refusal(self, refused: RefusedError) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body, in the form of the service that is addressed."""
        if self.is_json:
            code = _JSON_CODES.get(refused.code, refused.code)
            document = {"__type": code, "message": refused.message, "Message": refused.message}
            kind = "application/x-amz-json-1.1" if self.all("x-amz-target") else "application/json"
            headers = [("content-type", kind), ("x-amzn-errortype", code)]
            return refused.status, headers, json.dumps(document).encode()
        error = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
        body = error if self.is_s3 else f"<ErrorResponse>{error}</ErrorResponse>"
        declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
        return refused.status, [("content-type", "application/xml")], (declaration + body).encode()


def is_host_name(text: str) -> bool:
    """Whether it is a name or address as in a Host header, without port."""
    found = _HOST.fullmatch(text.lower())
    return found is not None and found[2] is None


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin1")
