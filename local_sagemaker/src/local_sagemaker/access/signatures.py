"""Signatures of requests: version 4 in header and query, version 2 in the query of S3 links.

botocore's own signers compute what the signature should be:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/RESTAuthentication.html (version 2).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import UNSIGNED_PAYLOAD, HmacV1QueryAuth, S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials as BotoCredentials

from local_sagemaker.access.payloads import ChunkSigner, Payload, SignedChunks, UnsignedPayload, WholePayload
from local_sagemaker.access.request import AddressedRequest, RefusedError
from local_sagemaker.context import Credentials

_SKEW = 15 * 60  # seconds between the clocks of client and server, as on AWS
_LONGEST_LINK = 7 * 24 * 3600  # seconds, as on AWS
_TIME = "%Y%m%dT%H%M%SZ"
_ALGORITHM = "AWS4-HMAC-SHA256"
_FIELD = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
_SCOPE = re.compile(r"([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
_PAYLOAD_HASH = "x-amz-content-sha256"
_UNSIGNED_IN_LINKS_OF_VERSION_2 = {  # parameters that list or describe, and those of the signature itself
    "AWSAccessKeyId", "Signature", "Expires", "x-id", "prefix", "delimiter", "list-type", "marker",
    "max-keys", "continuation-token", "start-after", "encoding-type", "fetch-owner", "content-type",
    "content-md5",
}  # fmt: skip


@dataclass(frozen=True)
class _Signed:
    """A signature of version 4 and what it says about itself. `at` is in seconds since the epoch."""

    access_key: str
    date: str
    region: str
    service: str
    timestamp: str
    header_names: tuple[str, ...]
    signature: str

    @property
    def at(self) -> float:
        return _instant(self.timestamp)


class SignatureCheck:
    """Accepts what is signed with the one pair of keys. `clock` gives seconds since the epoch."""

    def __init__(self, credentials: Credentials, clock: Callable[[], float]) -> None:
        self._credentials = credentials
        self._boto = BotoCredentials(credentials.access_key, credentials.secret_key)
        self._clock = clock

    def begin(self, request: AddressedRequest) -> Payload:
        """Check all but the body, and return what checks the body. Raises RefusedError."""
        in_header = bool(request.all("authorization"))
        in_query = [name for name in ("X-Amz-Algorithm", "Signature") if request.parameter(name)]
        if in_header + len(in_query) > 1:
            raise RefusedError(
                "The request is signed in more than one way: sign it once.", "InvalidArgument", 400
            )
        if in_header:
            return self._header(request)
        if in_query == ["X-Amz-Algorithm"]:
            return self._link(request)
        if in_query == ["Signature"]:
            return self._link_of_version_2(request)
        raise RefusedError(
            "The request is not signed, and this local SageMaker was started with --require-signatures: use "
            "the keys in its credentials.json. Forms (presigned POST) are not accepted."
        )

    def _header(self, request: AddressedRequest) -> Payload:
        text = request.header("authorization")
        if not text.startswith(f"{_ALGORITHM} "):
            raise RefusedError(f"In a header, only signatures of version 4 ({_ALGORITHM}) are accepted.")
        fields = dict(_FIELD.findall(text))
        signed = self._signed(request, fields, request.header("x-amz-date") or _from_date(request))
        if abs(self._clock() - signed.at) > _SKEW:
            raise RefusedError(
                f"The request was signed at {signed.timestamp}, over 15 minutes from now: set the clock.",
                "RequestTimeTooSkewed",
            )
        declared = request.header(_PAYLOAD_HASH)
        if signed.service == "s3" and not declared:
            raise RefusedError(f"The header {_PAYLOAD_HASH} is missing.", "InvalidRequest", 400)
        return self._payload(request, signed, declared)

    def _link(self, request: AddressedRequest) -> Payload:
        if request.parameter("X-Amz-Algorithm") != _ALGORITHM:
            raise RefusedError(
                f"X-Amz-Algorithm must be {_ALGORITHM}.", "AuthorizationQueryParametersError", 400
            )
        names = {"Credential": "X-Amz-Credential", "SignedHeaders": "X-Amz-SignedHeaders"}
        names |= {"Signature": "X-Amz-Signature"}
        fields = {field: request.parameter(name) for field, name in names.items()}
        signed = self._signed(request, fields, request.parameter("X-Amz-Date"))
        expires = request.parameter("X-Amz-Expires")
        if not _is_number(expires) or not 0 < int(expires) <= _LONGEST_LINK:
            message = f"X-Amz-Expires must be a number of seconds from 1 to {_LONGEST_LINK}."
            raise RefusedError(message, "AuthorizationQueryParametersError", 400)
        now = self._clock()
        if now > signed.at + int(expires) or signed.at > now + _SKEW:
            raise RefusedError("The link has expired, or is not valid yet: ask for a new one.")
        declared = request.header(_PAYLOAD_HASH)
        return self._payload(
            request, signed, declared or (UNSIGNED_PAYLOAD if signed.service == "s3" else "")
        )

    def _signed(self, request: AddressedRequest, fields: dict[str, str], timestamp: str) -> _Signed:
        scope = _SCOPE.fullmatch(fields.get("Credential", ""))
        if scope is None or not fields.get("SignedHeaders") or not fields.get("Signature"):
            raise RefusedError(
                "The signature lacks Credential, SignedHeaders or Signature.", "InvalidRequest", 400
            )
        names = tuple(fields["SignedHeaders"].lower().split(";"))
        signed = _Signed(scope[1], scope[2], scope[3], scope[4], timestamp, names, fields["Signature"])
        self._check_key(signed.access_key)
        if not timestamp.startswith(signed.date):
            raise RefusedError("Credential and X-Amz-Date have different dates.", "InvalidRequest", 400)
        _ = signed.at
        carried = {name for name, _ in request.headers if name.startswith("x-amz-")} | {"host"}
        missing = sorted(carried - set(names))
        if missing:
            raise RefusedError(f"Headers of the request are not signed: {', '.join(missing)}.")
        return signed

    def _check_key(self, access_key: str) -> None:
        if not _equal(access_key, self._credentials.access_key):
            raise RefusedError(
                f"The access key {access_key[:40]!r} is not this local SageMaker's: use the keys in its "
                "credentials.json.",
                "InvalidAccessKeyId",
            )

    def _payload(self, request: AddressedRequest, signed: _Signed, declared: str) -> Payload:
        """What checks the body. Where its hash is declared, the signature is checked at once."""
        signer = _signer(self._boto, request, signed)
        aws_request = _aws_request(request, signed)

        def check(payload_hash: str) -> None:
            aws_request.headers["X-Amz-Content-SHA256"] = payload_hash
            text = signer.string_to_sign(aws_request, signer.canonical_request(aws_request))
            _compare(signer.signature(text, aws_request), signed.signature)

        if not declared:
            return WholePayload(check)
        check(declared)
        if declared in {UNSIGNED_PAYLOAD, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}:
            return UnsignedPayload()
        if declared in {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"}:
            sign = ChunkSigner(
                signed.timestamp,
                signer.credential_scope(aws_request),
                lambda text: str(signer.signature(text, aws_request)),
            )
            return SignedChunks(sign, signed.signature, trailer=declared.endswith("TRAILER"))
        if re.fullmatch("[0-9a-f]{64}", declared) is None:
            raise RefusedError(f"{_PAYLOAD_HASH} has a value that is not supported.", "InvalidArgument", 400)
        return UnsignedPayload(hashlib.sha256(), declared)

    def _link_of_version_2(self, request: AddressedRequest) -> Payload:
        expires, signature = request.parameter("Expires"), request.parameter("Signature")
        self._check_key(request.parameter("AWSAccessKeyId"))
        if not request.is_s3:
            raise RefusedError("Only links to S3 may be signed with version 2.")
        if not _is_number(expires):
            raise RefusedError("Expires must be a time in seconds since 1970.", "InvalidArgument", 400)
        if self._clock() > int(expires):
            raise RefusedError("The link has expired: ask for a new one.")
        _check_parameters_of_version_2(request)
        path = f"/{request.virtual_bucket}{request.path}" if request.virtual_bucket else request.path
        path = path if "/" in path[1:] else f"{path}/"  # as botocore signs requests about a bucket
        url = urlsplit(f"http://s3{path}" + (f"?{request.query}" if request.query else ""))
        headers = HTTPHeaders()
        for name, value in _headers_of_version_2(request):
            headers[name] = value
        headers["Date"] = expires
        signer = _LinkOfVersion2(self._boto, expires)
        expected = signer.get_signature(request.method, url, headers, auth_path=path)  # type: ignore[arg-type]
        _compare(expected, signature)
        return UnsignedPayload()


class _SignedHeaders:
    """Signs the headers that the client has signed, as they arrived."""

    received: HTTPHeaders

    def headers_to_sign(self, _request: AWSRequest) -> HTTPHeaders:
        return self.received


class _Signer(_SignedHeaders, SigV4Auth):
    pass


class _S3Signer(_SignedHeaders, S3SigV4Auth):
    pass


class _LinkOfVersion2(HmacV1QueryAuth):
    def __init__(self, credentials: BotoCredentials, expires: str) -> None:
        super().__init__(credentials)
        self._date = expires

    def _get_date(self) -> str:
        return self._date


def _signer(credentials: BotoCredentials, request: AddressedRequest, signed: _Signed) -> Any:
    kind = _S3Signer if signed.service == "s3" else _Signer
    signer = kind(credentials, signed.service, signed.region)
    signer.received = HTTPHeaders()
    for name, value in request.headers:
        if name in signed.header_names:
            signer.received[name] = value
    return signer


def _aws_request(request: AddressedRequest, signed: _Signed) -> AWSRequest:
    parameters = [(name, value) for name, value in request.parameters if name != "X-Amz-Signature"]
    url = f"http://{request.host}{request.path}"
    aws_request = AWSRequest(method=request.method, url=url, params=parameters)  # type: ignore[arg-type]  # pairs will do
    aws_request.context["timestamp"] = signed.timestamp
    return aws_request


def _headers_of_version_2(request: AddressedRequest) -> list[tuple[str, str]]:
    """The headers that count: as received, else from the query, where botocore writes them."""
    carried = {name for name, _ in request.headers}
    candidates = [
        *request.headers,
        *((n.lower(), v) for n, v in request.parameters if n.lower() not in carried),
    ]
    plain = {"content-md5", "content-type"}
    return [(name, value) for name, value in candidates if name in plain or name.startswith("x-amz-")]


def _check_parameters_of_version_2(request: AddressedRequest) -> None:
    """Version 2 signs only some parameters: others could be added to a link to make it do something else."""
    signed = set(HmacV1QueryAuth.QSAOfInterest) | _UNSIGNED_IN_LINKS_OF_VERSION_2
    others = sorted({name for name, _ in request.parameters} - signed)
    others = [name for name in others if not name.lower().startswith("x-amz-")]
    if others:
        raise RefusedError(f"A link signed with version 2 may not have the parameter {others[0][:100]!r}.")


def _from_date(request: AddressedRequest) -> str:
    """The time of the header Date in the form of X-Amz-Date. Raises RefusedError."""
    text = request.header("date")
    try:
        return parsedate_to_datetime(text).astimezone(UTC).strftime(_TIME)
    except ValueError as error:
        raise RefusedError("The request has no valid X-Amz-Date.", "AccessDenied") from error


def _instant(timestamp: str) -> float:
    try:
        return datetime.strptime(timestamp, _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise RefusedError(f"X-Amz-Date {timestamp[:40]!r} is not a time.", "AccessDenied") from error


def _compare(expected: str, received: str) -> None:
    if not _equal(expected, received):
        raise RefusedError(
            "The signature does not match the request: check the secret key in credentials.json, and that "
            "nothing between client and server changes the request.",
            "SignatureDoesNotMatch",
        )


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,12}", text) is not None


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
