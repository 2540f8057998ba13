"""Cross-origin requests that a bucket's own CORS configuration allows.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html: the first rule that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from local_sagemaker.access.request import AddressedRequest, RefusedError
from local_sagemaker.s3.moto_backend import s3_backend

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class CorsRule:
    """One rule; `*` in an origin or a header stands for any text. `max_age` is in seconds."""

    origins: Sequence[str]
    methods: Sequence[str]
    headers: Sequence[str]
    exposed: Sequence[str]
    max_age: str | None

    def allows(self, origin: str, method: str, headers: Sequence[str]) -> bool:
        return (
            method in self.methods
            and any(_matches(pattern, origin) for pattern in self.origins)
            and all(any(_matches(pattern, header) for pattern in self.headers) for header in headers)
        )

    def response_headers(self, origin: str) -> Headers:
        """What tells the browser that the page may read the response."""
        allowed = "*" if "*" in self.origins else origin
        headers = [("access-control-allow-origin", allowed), ("vary", "Origin")]
        headers += [("access-control-expose-headers", ", ".join(self.exposed))] if self.exposed else []
        return headers


def bucket_rules(bucket: str) -> list[CorsRule]:
    """The rules of a bucket in their order; none where the bucket or its configuration does not exist."""
    found = s3_backend().buckets.get(bucket)
    return [] if found is None else [_rule(rule) for rule in found.cors]


def matching_rule(request: AddressedRequest) -> CorsRule | None:
    """The rule that allows a request of its page's origin, if it is one to S3."""
    if not request.is_s3 or len(request.all("origin")) != 1:
        return None
    return _first(request, request.method, [])


def preflight(request: AddressedRequest) -> Headers:
    """The headers that answer a browser's OPTIONS request. Raises RefusedError unless a rule allows it."""
    origin, method = request.header("origin"), request.header("access-control-request-method")
    wanted = request.header("access-control-request-headers").split(",")
    headers = [header.strip() for header in wanted if header.strip()]
    rule = _first(request, method, headers) if request.is_s3 and origin else None
    if rule is None:
        raise RefusedError(
            f"CORS is not allowed for the Origin {origin[:100]!r} and the method {method[:20]!r}: only the "
            "CORS configuration of a bucket (PutBucketCors) allows it, for that bucket's objects.",
            "AccessForbidden",
        )
    answer = [*rule.response_headers(origin), ("access-control-allow-methods", ", ".join(rule.methods))]
    answer += [("access-control-allow-headers", ", ".join(headers))] if headers else []
    answer += [("access-control-max-age", rule.max_age)] if rule.max_age else []
    return answer


def _first(request: AddressedRequest, method: str, headers: Sequence[str]) -> CorsRule | None:
    origin = request.header("origin")
    return next((rule for rule in bucket_rules(request.bucket) if rule.allows(origin, method, headers)), None)


def _rule(rule: Any) -> CorsRule:
    """A rule of moto's."""
    return CorsRule(
        rule.allowed_origins or (),
        rule.allowed_methods or (),
        rule.allowed_headers or (),
        rule.exposed_headers or (),
        rule.max_age_seconds,
    )


def _matches(pattern: str, text: str) -> bool:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(expression, text, re.IGNORECASE) is not None
