"""`--require-signatures`: what boto3 signs in any way is accepted, everything else is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import httpx
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from local_sagemaker.access.payloads import ChunkSigner, SignedChunks
from local_sagemaker.access.request import RefusedError
from local_sagemaker.startup import StartError, own_credentials

from tests.local_sagemaker.conftest import MakeRuntime
from tests.local_sagemaker.runtime_process import REGION, REPOSITORY, RuntimeProcess
from tests.local_sagemaker.training_support import JobRunner

BUCKET = "signed-bucket"
AWKWARD_KEYS = [
    "a b/c+d&e=f",
    "täst/日本.png",
    "double//slash",
    "/leading",
    "tilde~()'*!",
    "percent%2F%25",
]
LIST = {"X-Amz-Target": "SageMaker.ListTrainingJobs", "Content-Type": "application/x-amz-json-1.1"}


@pytest.fixture(scope="module")
def signed(make_runtime: MakeRuntime) -> RuntimeProcess:
    runtime = make_runtime(options=("--require-signatures",))
    runtime.client("s3").create_bucket(Bucket=BUCKET)
    return runtime


@pytest.fixture
def s3(signed: RuntimeProcess) -> Any:
    return signed.client("s3")


@pytest.fixture
def keys(signed: RuntimeProcess) -> Credentials:
    return Credentials(*signed.keys.values())


def _code(response: httpx.Response) -> str:
    """The error code of a refusal, in XML or JSON."""
    assert 400 <= response.status_code < 500, response.text
    if response.headers["content-type"] == "application/xml":
        return response.text.partition("<Code>")[2].partition("</Code>")[0]
    return str(response.json()["__type"])


class _Request(AWSRequest):
    """A request whose method and URL are known."""

    method: str
    url: str


class _Declared(S3SigV4Auth):
    """Signs a request to S3 whose payload's hash is declared already."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["payload"]) if "payload" in request.context else super().payload(request)


def _at(at: datetime | None) -> Any:
    """Let botocore sign as if it were `at`."""
    return mock.patch("botocore.auth.get_current_datetime", return_value=at or datetime.now(UTC))


def _sign(keys: Credentials, request: _Request, service: str, at: datetime | None = None) -> _Request:
    """Sign by version 4 in headers."""
    with _at(at):
        (_Declared if service == "s3" else SigV4Auth)(keys, service, REGION).add_auth(request)
    return request


def _send(request: _Request, **changes: Any) -> httpx.Response:
    sent: dict[str, Any] = {"headers": dict(request.headers), "content": request.data, **changes}
    return httpx.request(request.method, request.url, **sent)


def _list(signed: RuntimeProcess, keys: Credentials, at: datetime | None = None) -> _Request:
    request = _Request(method="POST", url=signed.url + "/", data=b"{}", headers=dict(LIST))
    return _sign(keys, request, "sagemaker", at)


@pytest.mark.parametrize("key", [*AWKWARD_KEYS, "a/../b"])
def test_s3_requests_of_boto3(s3: Any, key: str) -> None:
    s3.put_object(
        Bucket=BUCKET, Key=key, Body=b"abc", Metadata={"breed": "Chihuahua", "two": "a  b"}, Tagging="a=b%20c"
    )
    assert s3.get_object(Bucket=BUCKET, Key=key, Range="bytes=1-")["Body"].read() == b"bc"
    assert s3.head_object(Bucket=BUCKET, Key=key)["Metadata"]["breed"] == "Chihuahua"
    s3.copy_object(Bucket=BUCKET, Key=f"{key}-copy", CopySource={"Bucket": BUCKET, "Key": key})
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=key, Delimiter="|")
    assert [entry["Key"] for entry in listed["Contents"]] == [key, f"{key}-copy"]
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}, {"Key": f"{key}-copy"}]})
    assert len(gone["Deleted"]) == 2


@pytest.mark.parametrize("calculation", ["when_supported", "when_required"])
@pytest.mark.parametrize("algorithm", [None, "CRC32", "SHA256"])
@pytest.mark.parametrize("signing", [None, True, False])
def test_bodies_and_checksums(
    signed: RuntimeProcess, calculation: str, algorithm: str | None, signing: bool | None
) -> None:
    s3 = signed.client(
        "s3", request_checksum_calculation=calculation, s3={"payload_signing_enabled": signing}
    )
    chosen = {} if algorithm is None else {"ChecksumAlgorithm": algorithm}
    s3.put_object(Bucket=BUCKET, Key="body", Body=io.BytesIO(b"x" * 100_000), **chosen)
    assert s3.get_object(Bucket=BUCKET, Key="body")["Body"].read() == b"x" * 100_000


def test_multipart_uploads(s3: Any) -> None:
    content = os.urandom(9 * 1024 * 1024)
    s3.upload_fileobj(io.BytesIO(content), BUCKET, "large")
    target = io.BytesIO()
    s3.download_fileobj(BUCKET, "large", target)
    assert target.getvalue() == content


def test_other_services(signed: RuntimeProcess, keys: Credentials) -> None:
    assert signed.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
    assert signed.client("sts").get_caller_identity()["Account"] == "123456789012"
    signed.client("iam").create_role(RoleName="role", AssumeRolePolicyDocument="{}")
    signed.client("logs").create_log_group(logGroupName="/a")
    signed.client("cloudwatch").put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1.0}])
    with pytest.raises(ClientError, match="nobody") as caught:
        signed.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="nobody", Body=b"x", CustomAttributes="a=b"
        )
    assert caught.value.response["Error"]["Code"] == "ValidationError"


@pytest.mark.parametrize("service", ["sagemaker", "s3", "sts", "iam", "logs", "sagemaker-runtime"])
@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_other_keys_are_refused(signed: RuntimeProcess, service: str, wrong: str) -> None:
    keys = dict(signed.keys)
    keys["aws_access_key_id" if wrong == "key" else "aws_secret_access_key"] = "other"
    client: Any = boto3.client(service, endpoint_url=signed.url, region_name=REGION, **keys)  # type: ignore[call-overload]
    operation, arguments = {
        "sagemaker": ("list_models", {}),
        "s3": ("list_buckets", {}),
        "sts": ("get_caller_identity", {}),
        "iam": ("list_roles", {}),
        "logs": ("describe_log_groups", {}),
        "sagemaker-runtime": ("invoke_endpoint", {"EndpointName": "e", "Body": b"x"}),
    }[service]
    with pytest.raises(ClientError, match=r"credentials\.json") as caught:
        getattr(client, operation)(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert caught.value.response["Error"]["Code"] in {
        "InvalidAccessKeyId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
    }


@pytest.mark.parametrize(
    "path", ["/", f"/{BUCKET}", f"/{BUCKET}/k", "/endpoints/e/invocations", "/iam_us-east-1/"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_unsigned_requests_are_refused(signed: RuntimeProcess, path: str, method: str) -> None:
    assert httpx.request(method, signed.url + path, content=b"{}").status_code == 403
    assert httpx.request(method, signed.url + path, headers=LIST, content=b"{}").status_code == 403


def test_forms_are_refused(signed: RuntimeProcess, s3: Any) -> None:
    form = s3.generate_presigned_post(BUCKET, "form")
    response = httpx.post(form["url"], data=form["fields"], files={"file": b"x"})
    assert _code(response) == "AccessDenied"
    assert "Forms" in response.text


def test_health_needs_no_signature(signed: RuntimeProcess) -> None:
    assert httpx.get(f"{signed.url}/_local/health").status_code == 200
    assert httpx.post(f"{signed.url}/_local/health").status_code == 403
    assert httpx.get(f"{signed.url}/_local/health", headers={"host": "attacker.example"}).status_code == 403


def test_a_changed_request_is_refused(signed: RuntimeProcess, keys: Credentials) -> None:
    request = _list(signed, keys)
    headers = dict(request.headers)
    assert _send(request).status_code == 200
    assert _code(_send(request, content=b'{"MaxResults": 1}')) == "InvalidSignatureException"
    changed = {**headers, "X-Amz-Target": "SageMaker.CreateTrainingJob"}
    assert _code(_send(request, headers=changed)) == "InvalidSignatureException"
    assert _code(_send(request, headers={**headers, "X-Amz-Security-Token": "t"})) == "AccessDeniedException"
    assert (
        _code(_send(request, headers={**headers, "Host": f"localhost:{signed.port}"}))
        == "InvalidSignatureException"
    )
    assert httpx.post(signed.url + "/?a=b", headers=headers, content=b"{}").status_code == 403
    assert httpx.put(signed.url + "/", headers=headers, content=b"{}").status_code == 403
    twice = [*headers.items(), ("X-Amz-Target", "SageMaker.CreateTrainingJob")]
    assert httpx.post(signed.url + "/", headers=twice, content=b"{}").status_code == 403


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic YTpi",
        "AWS key:signature",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential={key}/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=0",
        "AWS4-ECDSA-P256-SHA256 Credential={key}/20260101/s3/aws4_request, SignedHeaders=host, Signature=0",
    ],
)
def test_malformed_signatures_are_client_errors(signed: RuntimeProcess, authorization: str) -> None:
    header = authorization.format(key=signed.keys["aws_access_key_id"])
    for extra in ({}, {"x-amz-date": "never"}, {"date": "never"}, {"x-amz-date": "20260101T000000Z"}):
        response = httpx.get(f"{signed.url}/{BUCKET}", headers={"authorization": header, **extra})
        assert response.status_code in {400, 403}


@pytest.mark.parametrize("minutes", [-16, 16])
def test_clock_skew_is_refused(signed: RuntimeProcess, keys: Credentials, minutes: int) -> None:
    now = datetime.now(UTC)
    assert _send(_list(signed, keys, now + timedelta(minutes=minutes * 14 / 16))).status_code == 200
    response = _send(_list(signed, keys, now + timedelta(minutes=minutes)))
    assert _code(response) == "InvalidSignatureException"
    assert "15 minutes" in response.json()["message"]


def test_a_date_header_will_do(signed: RuntimeProcess, keys: Credentials) -> None:
    request = _Request(method="POST", url=signed.url + "/", data=b"{}", headers=dict(LIST))
    request.headers["Date"] = formatdate(usegmt=True)
    _sign(keys, request, "sagemaker")
    assert "X-Amz-Date" not in request.headers
    assert _send(request).status_code == 200


def test_a_body_with_another_hash_is_refused(signed: RuntimeProcess, keys: Credentials, s3: Any) -> None:
    request = _sign(keys, _Request(method="PUT", url=f"{signed.url}/{BUCKET}/hash", data=b"right"), "s3")
    assert _code(_send(request, content=b"wrong")) == "XAmzContentSHA256Mismatch"
    assert _code(_send(request, content=b"x" * 10_000_000)) == "XAmzContentSHA256Mismatch"
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="hash")
    assert _send(request).status_code == 200
    headers = {name: value for name, value in request.headers.items() if name != "X-Amz-Content-SHA256"}
    assert _code(_send(request, headers=headers)) == "InvalidRequest"


@pytest.fixture(params=["s3", "s3v4"])
def links(signed: RuntimeProcess, request: pytest.FixtureRequest) -> Any:
    """A client that signs links with version 2 or 4."""
    return signed.client("s3", signature_version=request.param)


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_links(links: Any, s3: Any, key: str) -> None:
    there = {"Bucket": BUCKET, "Key": key}
    put = links.generate_presigned_url(
        "put_object", Params={**there, "ContentType": "text/plain", "Metadata": {"a": "b"}}
    )
    headers = {"content-type": "text/plain", "x-amz-meta-a": "b"}
    assert httpx.put(put, content=b"abc", headers=headers).status_code == 200
    assert s3.head_object(**there)["Metadata"] == {"a": "b"}
    get = links.generate_presigned_url(
        "get_object", Params={**there, "ResponseContentType": "text/html; charset=utf-8"}
    )
    shown = httpx.get(get)
    assert (shown.text, shown.headers["content-type"]) == ("abc", "text/html; charset=utf-8")
    assert httpx.head(get).status_code == 403
    assert httpx.get(get.replace("text", "image")).status_code == 403
    assert httpx.get(get + "&versionId=1").status_code == 403
    assert httpx.get(get + "&tagging").status_code == 403
    assert httpx.get(get + "&ownershipControls").status_code == 403
    assert httpx.get(get.replace("?", "x?", 1)).status_code == 403
    assert httpx.get(get, headers={"x-amz-request-payer": "requester"}).status_code == 403
    assert httpx.get(get, headers={"authorization": "AWS4-HMAC-SHA256 x"}).status_code == 400
    assert httpx.put(put, content=b"abc", headers={**headers, "content-type": "text/html"}).status_code == 403
    listed = httpx.get(
        links.generate_presigned_url("list_objects_v2", Params={"Bucket": BUCKET, "Prefix": key})
    )
    assert listed.status_code == 200
    gone = httpx.delete(links.generate_presigned_url("delete_object", Params=there))
    assert gone.status_code == 204


def test_expired_links_are_refused(signed: RuntimeProcess, links: Any, keys: Credentials) -> None:
    get = links.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "k"}, ExpiresIn=-5)
    response = httpx.get(get)
    assert response.status_code in {400, 403}
    assert "expired" in response.text or "X-Amz-Expires" in response.text


@pytest.mark.parametrize(
    ("seconds_ago", "expires", "allowed"),
    [(50, 60, True), (70, 60, False), (-1000, 60, False), (0, 604801, False), (0, 604800, True)],
)
def test_links_have_a_time(
    signed: RuntimeProcess, keys: Credentials, seconds_ago: int, expires: int, allowed: bool
) -> None:
    parameters = {"Action": "GetCallerIdentity", "Version": "2011-06-15"}
    request = _Request(method="POST", url=signed.url + "/", params=parameters)
    with _at(datetime.now(UTC) - timedelta(seconds=seconds_ago)):
        SigV4QueryAuth(keys, "sts", REGION, expires).add_auth(request)
    response = httpx.post(request.url)
    assert (response.status_code not in {400, 403}) == allowed, response.text


def _chunked(keys: Credentials, url: str, content: bytes, trailer: bool) -> tuple[_Request, list[bytes]]:
    """A PUT in signed chunks of 64 KiB: its headers, and the parts of its body."""
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    headers = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(len(content))}
    headers |= {"X-Amz-Trailer": "x-amz-checksum-sha256"} if trailer else {}
    request = _Request(method="PUT", url=url, headers=headers)
    request.context["payload"] = kind
    _sign(keys, request, "s3")
    signer = S3SigV4Auth(keys, "s3", REGION)
    previous = request.headers["Authorization"].rpartition("=")[2]

    def sign(kind: str, *rest: str) -> str:
        text = "\n".join(
            [kind, request.context["timestamp"], signer.credential_scope(request), previous, *rest]
        )
        return str(signer.signature(text, request))

    parts = []
    empty = hashlib.sha256().hexdigest()
    for start in [*range(0, len(content), 65536), len(content)]:
        chunk = content[start : start + 65536]
        previous = sign("AWS4-HMAC-SHA256-PAYLOAD", empty, hashlib.sha256(chunk).hexdigest())
        end = b"" if trailer and not chunk else b"\r\n"
        parts.append(f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + end)
    if trailer:
        checksum = "x-amz-checksum-sha256:" + b64(hashlib.sha256(content).digest())
        previous = sign("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(f"{checksum}\n".encode()).hexdigest())
        parts.append(f"{checksum}\r\nx-amz-trailer-signature:{previous}\r\n\r\n".encode())
    return request, parts


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("trailer", [False, True])
def test_signed_chunks(signed: RuntimeProcess, keys: Credentials, s3: Any, trailer: bool) -> None:
    content = os.urandom(150_000)
    request, parts = _chunked(keys, f"{signed.url}/{BUCKET}/chunks-{trailer}", content, trailer)
    whole = b"".join(parts)
    changed = whole.replace(content[70_000:70_100], content[70_100:70_200])
    for wrong in (
        changed,
        whole[:-100],
        b"".join(parts[1:]),
        b"".join([*parts[:1], *parts]),
        whole + b"more",
        b"",
        content,
    ):
        assert 400 <= _send(request, content=wrong).status_code < 500
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"chunks-{trailer}")
    assert _send(request, content=whole).status_code == 200
    assert s3.get_object(Bucket=BUCKET, Key=f"chunks-{trailer}")["Body"].read() == content


def test_chunks_with_an_unsigned_trailer(signed: RuntimeProcess, keys: Credentials, s3: Any) -> None:
    headers = {"Content-Encoding": "aws-chunked", "X-Amz-Trailer": "x-amz-checksum-sha256"}
    headers["X-Amz-Decoded-Content-Length"] = "5"
    request = _Request(method="PUT", url=f"{signed.url}/{BUCKET}/trailer", headers=headers)
    request.context["payload"] = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    _sign(keys, request, "s3")
    checksum = b64(hashlib.sha256(b"hello").digest())
    body = f"5\r\nhello\r\n0\r\nx-amz-checksum-sha256:{checksum}\r\n\r\n".encode()
    assert _send(request, content=body).status_code == 200
    assert s3.get_object(Bucket=BUCKET, Key="trailer")["Body"].read() == b"hello"
    assert (
        _send(
            request, headers={**request.headers, "X-Amz-Trailer": "x-amz-checksum-crc32"}, content=body
        ).status_code
        == 403
    )


@pytest.mark.parametrize("step", [1, 7, 1000, 70_000])
def test_the_example_of_the_documentation(step: int) -> None:
    """The chunks of https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html."""
    request = AWSRequest()
    request.context["timestamp"] = "20130524T000000Z"
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    auth = S3SigV4Auth(keys, "s3", "us-east-1")
    signer = ChunkSigner(
        "20130524T000000Z", auth.credential_scope(request), lambda text: str(auth.signature(text, request))
    )
    signatures = (
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    )
    sizes = (65536, 1024, 0)
    body = b"".join(
        f"{size:x};chunk-signature={signature}\r\n".encode() + b"a" * size + b"\r\n"
        for size, signature in zip(sizes, signatures, strict=True)
    )
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"

    def feed(content: bytes) -> None:
        chunks = SignedChunks(signer, seed, trailer=False)
        for start in range(0, len(content), step):
            chunks.feed(content[start : start + step])
        chunks.finish()

    feed(body)
    for wrong in (body.replace(b"aaa", b"aab", 1), body[:-200], b"z" * 10_000):
        with pytest.raises(RefusedError):
            feed(wrong)


_SCRIPT = """
import boto3, os
s3 = boto3.client("s3")
s3.put_object(Bucket="signed-bucket", Key="from-the-job", Body=b"signed")
open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write("model")
"""


def test_jobs_sign_with_the_keys_of_the_runtime(signed: RuntimeProcess, s3: Any) -> None:
    signed.client("iam").create_role(RoleName="jobs", AssumeRolePolicyDocument="{}")
    jobs = JobRunner(signed, BUCKET, "arn:aws:iam::123456789012:role/jobs")
    jobs.create("signed", _SCRIPT, InputDataConfig=[jobs.channel("train", "code/signed")])
    job = jobs.wait("signed")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert jobs.object("from-the-job") == b"signed"
    secret = signed.keys["aws_secret_access_key"]
    assert not [line for line in jobs.log("signed") if secret in line]
    files = [path for path in signed.root.rglob("*") if path.is_file() and path.name != "credentials.json"]
    assert not [path for path in files if secret.encode() in path.read_bytes()]


@pytest.fixture
def umask() -> Iterator[None]:
    """Files are made for everybody, unless a program says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_the_keys_are_the_owners_alone_and_stay(umask: None, tmp_path: Path) -> None:
    made = own_credentials(tmp_path / "credentials.json")
    file = tmp_path / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert own_credentials(tmp_path / "credentials.json") == made
    assert made.secret_key not in str(made)
    assert own_credentials(tmp_path / "other" / "keys.json").secret_key != made.secret_key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["credentials.json", "other"]
    file.chmod(0o640)
    with pytest.raises(StartError, match="others can read it"):
        own_credentials(tmp_path / "credentials.json")


def test_every_start_makes_keys(runtime: RuntimeProcess) -> None:
    file = runtime.root / "credentials.json"
    made = json.loads(file.read_text())
    assert (made["Version"], made["AccessKeyId"][:5], stat.S_IMODE(file.stat().st_mode)) == (
        1,
        "LOCAL",
        0o600,
    )
    assert made["SecretAccessKey"] not in runtime.log()


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"AccessKeyId": 1, "SecretAccessKey": ""}'])
def test_a_broken_file_of_keys_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "credentials.json").touch(mode=0o600)
    (tmp_path / "credentials.json").write_text(content)
    with pytest.raises(StartError, match=r"credentials\.json: .*new keys are made"):
        own_credentials(tmp_path / "credentials.json")


def test_a_broken_file_of_keys_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").touch(mode=0o600)
    command = RuntimeProcess(tmp_path).command()
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cannot use")


def test_the_keys_serve_as_a_credential_process(signed: RuntimeProcess, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {signed.root / 'credentials.json'}\n")
    script = "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name'])"
    python = [sys.executable, "-c", script]
    environment = {"PATH": os.environ["PATH"], "AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL": signed.url}
    done = subprocess.run(
        python, env={**environment, "AWS_REGION": REGION}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == BUCKET
