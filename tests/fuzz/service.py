"""What the local SageMaker's port receives, and archives: run in the environment `sagemaker`."""

from __future__ import annotations

import argparse
import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from local_sagemaker.archives import unpack

from tests.fuzz import shapes
from tests.fuzz.client import Request, check, send_raw
from tests.fuzz.creations import BUCKET, CODE, ROLE, creations
from tests.fuzz.mutations import damaged, mutated
from tests.fuzz.samples import S3_HEADERS, S3_PARTS, S3_PATHS, XML_BODIES
from tests.fuzz.trying import Kind, main

IMAGES = [
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0-cpu-py312",
    "763104351884.dkr.ecr.us-east-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com/unknown:1",
]
URIS = [CODE, f"s3://{BUCKET}/data", f"s3://{BUCKET}/a/../../b", f"s3://{BUCKET}", "s3://none/key", "s3://"]
NAMES = ["fuzz-a", "fuzz-b", "fuzz-c"]
MODEL_GROUP = "arn:aws:sagemaker:us-east-1:123456789012:model-package-group/fuzz-a"
PACKAGES = [MODEL_GROUP.replace("-group/", "/") + "/1", *NAMES]
RAW_SECONDS = 0.3  # for a response to a request that may never be whole

# By the names of members, so that requests meet each other's resources and get past the first check.
_BY_VALUES: Sequence[tuple[str, Sequence[Any]]] = [
    ("RoleArn ExecutionRoleArn", [ROLE]),
    ("S3Uri S3OutputPath ModelDataUrl S3OutputLocation LocalPath", URIS),
    ("TrainingImage Image ImageUri RuleEvaluatorImage", IMAGES),
    ("TrainingJobName HyperParameterTuningJobName ProcessingJobName ModelName EndpointConfigName", NAMES),
    ("EndpointName ModelPackageGroupName NameContains VariantName ChannelName", NAMES),
    ("ModelPackageName", PACKAGES),
    ("ResourceArn", [MODEL_GROUP, MODEL_GROUP.replace("model-package-group", "endpoint")]),
    ("HyperParameters", [{"sagemaker_program": "train.py", "sagemaker_submit_directory": CODE}]),
    ("InstanceType", ["ml.m5.large", "ml.g4dn.xlarge"]),
    ("MaxNumberOfTrainingJobs", [1, 2]),
    ("MaxParallelTrainingJobs InstanceCount InitialInstanceCount", [1]),
    ("MaxRuntimeInSeconds", [60]),
]
SAGEMAKER_POOL = {name: values for names, values in _BY_VALUES for name in names.split()}
S3_POOL: Mapping[str, Sequence[Any]] = {
    "Bucket": ["fuzz-s3", "fuzz-other", "none", "BAD_BUCKET", "..", ""],
    "Key": ["a", "a/b", "a//b", "../../x", "é", "a b+c", "a\nb", "x" * 1024, "/", "folder/"],
    "UploadId": ["none", "../x"],
    "CopySource": ["fuzz-s3/a", "fuzz-s3/a?versionId=x", "/none/a", "none", "fuzz-s3/../x"],
    "VersionId": ["null", "x"],
    "Prefix": ["", "a", "a/"],
    "Delimiter": ["/", ""],
    "Range": ["bytes=0-1", "bytes=-5", "bytes=9-1", "bytes=0-99999999999999999999", "x"],
    "Policy": ["{}", "none", "[]", '{"Version": "2012-10-17", "Statement": []}'],
    "PartNumber": [1, 2, 10_000],
}
# Operations of moto's services that a pipeline, Airflow or a user of either calls.
OTHERS = {
    "logs": ["CreateLogGroup", "DescribeLogGroups", "DescribeLogStreams", "GetLogEvents", "FilterLogEvents"],
    "cloudwatch": [
        "PutMetricAlarm",
        "DescribeAlarms",
        "DeleteAlarms",
        "GetMetricStatistics",
        "GetMetricData",
    ],
    "iam": ["GetRole", "ListRoles", "CreateRole", "ListRolePolicies", "SimulatePrincipalPolicy"],
    "sts": ["GetCallerIdentity", "AssumeRole"],
}


def kinds(options: argparse.Namespace) -> Iterable[Kind]:
    url: str = options.url

    def requested(request: Request | None) -> bool:
        return request is not None and check(url, request).succeeded

    documents = _operations(url).flatmap(
        lambda name: st.tuples(st.just(name), shapes.valid(_input("sagemaker", name), SAGEMAKER_POOL))
    )
    yield Kind("SageMaker API, valid", documents.map(_api_request), requested)
    changed = documents.flatmap(lambda pair: st.tuples(st.just(pair[0]), mutated(st.just(pair[1]))))
    yield Kind("SageMaker API, mutated", changed.map(_api_request), requested)
    yield Kind("SageMaker API, creations", _creations().map(_api_request), requested, share=0.2)
    broken = documents.flatmap(
        lambda pair: st.builds(
            _api_body, _maybe(pair[0]), damaged(st.just(shapes.as_json(pair[1]))) | st.binary(max_size=50)
        )
    )
    yield Kind("SageMaker API, broken", broken | _deep(), requested)

    s3 = st.sampled_from(sorted(shapes.model("s3").operation_names)).filter(
        lambda name: name != "DeleteBucket"
    )
    yield Kind("S3, valid", _of_service("s3", s3, S3_POOL), requested)
    yield Kind("S3, mutated", _of_service("s3", s3, S3_POOL).flatmap(_mutated_request), requested)
    yield Kind("S3, broken", _s3_requests(), requested)
    for service, operations in OTHERS.items():
        made = _of_service(
            service, st.sampled_from(operations), {"RoleName": ["Fuzz"], "logGroupName": NAMES}
        )
        yield Kind(f"{service}, valid and mutated", made | made.flatmap(_mutated_request), requested)
    yield Kind("HTTP, broken", _raw(), lambda text: send_raw(url, text, RAW_SECONDS))
    yield Kind("archives, made", _archives(), _check_archive)
    yield Kind("archives, damaged", damaged(_archives()), _check_archive)


def _input(service: str, operation: str) -> Any:
    return shapes.model(service).operation_model(operation).input_shape


def _operations(url: str) -> st.SearchStrategy[str]:
    """What the local SageMaker has, and a few that it has not."""
    import httpx

    return st.sampled_from([*httpx.get(f"{url}/_local/health").json()["operations"], "CreateApp", "ListApps"])


@st.composite
def _creations(draw: st.DrawFn) -> tuple[str, Any]:
    """A request that creates something: as it is, changed, or with members that its shape allows."""
    requests = creations(f"fuzz-{draw(st.integers(0, 10**6))}")
    operation = draw(st.sampled_from(sorted(requests)))
    document = requests[operation]
    how = draw(st.sampled_from(["as it is", "changed", "changed", "more"]))
    if how == "more":
        more = draw(shapes.valid(_input("sagemaker", operation), SAGEMAKER_POOL))
        document = {**more, **document}
    return operation, draw(mutated(st.just(document))) if how == "changed" else document


def _maybe(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, name, name, name + "x", "", "é", "." * 300])


def _api_request(pair: tuple[str, Any]) -> Request:
    return _api_body(pair[0], shapes.as_json(pair[1]))


def _api_body(operation: str, body: bytes) -> Request:
    headers = {"X-Amz-Target": f"SageMaker.{operation}", "Content-Type": "application/x-amz-json-1.1"}
    return Request("POST", "/", headers, body)


def _deep() -> st.SearchStrategy[Request]:
    """Bodies that are deep, repetitive or of another encoding."""
    bodies = [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"TrainingJobName": "a", "TrainingJobName": ["b"]}',
        '{"TrainingJobName": "a"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"MaxResults": ' + b"9" * 5000 + b"}",
        b'{"NextToken": "\\ud800"}',
    ]
    names = st.sampled_from(["DescribeTrainingJob", "ListTrainingJobs", "CreateModel"])
    return st.builds(_api_body, names, st.sampled_from(bodies))


def _of_service(
    service: str, operations: st.SearchStrategy[str], pool: Mapping[str, Sequence[Any]]
) -> st.SearchStrategy[Request | None]:
    def made(name: str) -> st.SearchStrategy[Request | None]:
        operation = shapes.model(service).operation_model(name)
        document = shapes.valid(operation.input_shape, pool)
        return (document | mutated(document)).map(lambda one: _for(operation, one))

    return operations.flatmap(made)


def _for(operation: Any, document: Any) -> Request | None:
    """With a signature's header, which names the service."""
    request = shapes.serialised(operation, document)
    if request is None:
        return None
    scope = f"Credential=test/20261127/us-east-1/{operation.service_model.signing_name}/aws4_request"
    signature = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x"
    return Request(
        request.method, request.target, {**request.headers, "Authorization": signature}, request.body
    )


def _mutated_request(request: Request | None) -> st.SearchStrategy[Request | None]:
    if request is None:
        return st.none()
    target = damaged(st.just(request.target.encode(errors="surrogatepass"))).map(
        lambda text: "/" + text.decode("latin-1").lstrip("/")
    )
    return st.builds(
        Request,
        st.just(request.method)
        | st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
        st.just(request.target) | target,
        _headers().map(lambda more: {**request.headers, **more}),
        st.just(request.body) | damaged(st.just(request.body)),
    )


def _headers() -> st.SearchStrategy[dict[str, str]]:
    one = st.sampled_from(sorted(S3_HEADERS)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(S3_HEADERS[name]))
    )
    return st.lists(one, max_size=4).map(dict)


def _s3_requests() -> st.SearchStrategy[Request]:
    query = st.lists(st.sampled_from(S3_PARTS), max_size=3, unique=True).map("&".join)
    target = st.tuples(st.sampled_from(S3_PATHS), query).map(
        lambda pair: (pair[0] or "/") + ("?" + pair[1] if pair[1] else "")
    )
    methods = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "X"])
    bodies = st.sampled_from(XML_BODIES) | damaged(st.sampled_from(XML_BODIES))
    keeps = st.builds(Request, methods, target, _headers(), bodies)
    return keeps.filter(lambda request: not (request.method == "DELETE" and "/a" not in request.target))


def _raw() -> st.SearchStrategy[bytes]:
    """Text that is nearly HTTP."""
    wholes = [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"PUT /fuzz-s3/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\r\nhello",
        b"PUT /fuzz-s3/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Length: 2\r\n\r\n{}",
    ]
    headers = [
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: evil.example\r\n",
        b": \r\n",
        b"A: " + b"a" * 100_000 + b"\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Expect: 100-continue\r\n",
    ]
    more = st.tuples(st.sampled_from(wholes), st.sampled_from(headers)).map(
        lambda pair: pair[0].replace(b"\r\n", b"\r\n" + pair[1], 1)
    )
    return damaged(st.sampled_from(wholes)) | more | damaged(more)


@st.composite
def _archives(draw: st.DrawFn) -> bytes:
    """A tar, plain or compressed, whose members have names, types, targets and sizes of every kind."""
    parts = st.sampled_from(["a", "b", "c", "d"]) | st.sampled_from(["..", ".", "", "é", "a\nb", "x" * 300])
    names = st.lists(parts, min_size=1, max_size=5).map("/".join)
    kinds_ = st.sampled_from(
        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]
    )
    buffer = io.BytesIO()
    format_ = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for _ in range(draw(st.integers(0, 6))):
            member = tarfile.TarInfo(draw(names))
            member.type, member.linkname = draw(kinds_), draw(names)
            member.mode = draw(st.sampled_from([0o644, 0o000, 0o4777, 0o7777]))
            content = draw(st.binary(max_size=20)) if member.type == tarfile.REGTYPE else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue()) if draw(st.booleans()) else buffer.getvalue()


def _check_archive(content: bytes) -> bool:
    """Unpacked or refused; either way nothing lies or leads outside the folder."""
    with tempfile.TemporaryDirectory() as parent:
        archive, folder, secret = (Path(parent) / name for name in ("archive.tar.gz", "folder", "secret"))
        archive.write_bytes(content)
        secret.write_bytes(b"untouched")
        unpacked = False
        with suppress(tarfile.TarError, OSError):
            unpack(archive, folder)
            unpacked = True
        assert secret.read_bytes() == b"untouched", "a file beside the folder was written"
        beside = sorted(path.name for path in Path(parent).iterdir())
        assert beside == ["archive.tar.gz", "folder", "secret"], f"files beside the folder: {beside}"
        inside = os.path.realpath(folder)
        for path in folder.rglob("*"):
            real = os.path.realpath(path)
            assert os.path.commonpath([inside, real]) == inside, f"{path.name!r} leads to {real}"
            path.chmod(0o700) if path.is_dir() and not path.is_symlink() else None
    return unpacked


if __name__ == "__main__":
    main(kinds)
