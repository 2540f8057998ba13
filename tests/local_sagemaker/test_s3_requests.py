"""S3 requests that are wrong, large or awkward, and lists held against a model of them."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.local_sagemaker.runtime_process import RuntimeProcess

CONTENT = b"123456789"
# Of CONTENT: https://reveng.sourceforge.io/crc-catalogue/all.htm
CHECKSUMS = {
    "crc32": zlib.crc32(CONTENT).to_bytes(4, "big"),
    "crc32c": (0xE3069283).to_bytes(4, "big"),
    "crc64nvme": (0xAE8B14860A799888).to_bytes(8, "big"),
    "sha1": hashlib.sha1(CONTENT, usedforsecurity=False).digest(),
    "sha256": hashlib.sha256(CONTENT).digest(),
}
STREAMING = {
    "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    "x-amz-decoded-content-length": "9",
}
MALFORMED = [
    ("GET", "?list-type=2&max-keys=many", {}, b""),
    ("GET", "?list-type=2&continuation-token=none", {}, b""),
    ("GET", "?versions&max-keys=many", {}, b""),
    ("POST", "?delete", {}, b"<not xml"),
    ("POST", "?delete", {}, b"<Delete><Object></Object></Delete>"),
    ("PUT", "?tagging", {}, b"<Tagging/>"),
    ("PUT", "?lifecycle", {}, b"none"),
    ("POST", "", {}, b"no form"),
    ("GET", "/key", {"range": "bytes=7-1000,x"}, b""),
    ("PUT", "/key?partNumber=many&uploadId=none", {}, b"x"),
    ("PUT", "/copy", {"x-amz-copy-source": "none"}, b""),
    ("PUT", "/key", {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}, b"no chunk"),
    ("PUT", "/key", {"content-md5": "!"}, b"x"),
    ("PUT", "/" + "k" * 1025, {}, b"x"),
    ("PUT", "?policy", {}, b"none"),
    ("PUT", "?policy", {}, b"{}"),
    ("GET", "?list-type=2&max-keys=" + "9" * 5000, {}, b""),
]


@pytest.fixture(scope="module")
def bucket(runtime: RuntimeProcess) -> Iterator[str]:
    s3 = runtime.client("s3")
    s3.create_bucket(Bucket="requests")
    yield "requests"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket="requests"):
        for entry in page.get("Contents", []):
            s3.delete_object(Bucket="requests", Key=entry["Key"])


@pytest.fixture(scope="module")
def s3(runtime: RuntimeProcess) -> Any:
    return runtime.client("s3")


@pytest.fixture
def http(runtime: RuntimeProcess, bucket: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{runtime.url}/{bucket}", timeout=30) as client:
        yield client


def code(response: httpx.Response) -> str:
    return response.text.partition("<Code>")[2].partition("</Code>")[0]


@pytest.mark.parametrize("key", ["line\nbreak", "tab\there", "\x01\x1f", "back\\slash", "\r"])
def test_keys_with_control_characters_work(s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=key)["Contents"]
    assert [entry["Key"] for entry in listed] == [key]
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"
    s3.delete_object(Bucket=bucket, Key=key)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix=key)


@pytest.mark.parametrize(("method", "path", "headers", "body"), MALFORMED)
def test_a_malformed_request_is_the_clients_error(
    http: httpx.Client, method: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    response = http.request(method, f"{http.base_url}".rstrip("/") + path, headers=headers, content=body)
    assert 400 <= response.status_code < 500, response.text
    assert code(response)
    assert "Traceback" not in response.text


@pytest.mark.parametrize("name", ["BAD_BUCKET", "ab", "a..b", "192.168.1.1", "-ab"])
def test_a_bucket_s_name_is_checked(runtime: RuntimeProcess, name: str) -> None:
    response = httpx.put(f"{runtime.url}/{name}")
    assert (response.status_code, code(response)) == (400, "InvalidBucketName")


def test_a_policy_is_kept(s3: Any, bucket: str) -> None:
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"]) == json.loads(policy)
    s3.delete_bucket_policy(Bucket=bucket)


def test_what_nobody_implements_says_so(http: httpx.Client) -> None:
    response = http.patch("key", content=b"x")
    assert (response.status_code, code(response)) == (501, "NotImplemented")


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_a_wrong_checksum_is_refused_and_a_right_one_kept(http: httpx.Client, algorithm: str) -> None:
    name = f"x-amz-checksum-{algorithm}"
    right, size = base64.b64encode(CHECKSUMS[algorithm]).decode(), len(CHECKSUMS[algorithm])
    wrong = http.put(algorithm, content=CONTENT, headers={name: base64.b64encode(bytes(size)).decode()})
    assert (wrong.status_code, code(wrong)) == (400, "BadDigest")
    assert http.head(algorithm).status_code == 404
    stored = http.put(algorithm, content=CONTENT, headers={name: right})
    assert (stored.status_code, stored.headers[name]) == (200, right)


@pytest.mark.parametrize("algorithm", CHECKSUMS)
def test_the_checksum_in_a_trailer_counts(http: httpx.Client, s3: Any, bucket: str, algorithm: str) -> None:
    name = f"x-amz-checksum-{algorithm}"
    headers = {**STREAMING, "x-amz-trailer": name}
    for value, status in ((bytes(len(CHECKSUMS[algorithm])), 400), (CHECKSUMS[algorithm], 200)):
        trailer = f"{name}:{base64.b64encode(value).decode()}".encode()
        body = b"4\r\n1234\r\n5\r\n56789\r\n0\r\n" + trailer + b"\r\n\r\n"
        assert http.put("trailer", content=body, headers=headers).status_code == status
    assert s3.get_object(Bucket=bucket, Key="trailer")["Body"].read() == CONTENT
    s3.delete_object(Bucket=bucket, Key="trailer")


@pytest.mark.parametrize("query", ["", "?tagging"])
def test_a_wrong_md5_is_refused(http: httpx.Client, query: str) -> None:
    other = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    refused = http.put(f"md5{query}", content=CONTENT, headers={"content-md5": other})
    assert (refused.status_code, code(refused)) == (400, "BadDigest")
    assert http.head("md5").status_code == 404


def test_a_replaced_object_loses_its_tags_and_keeps_new_metadata(s3: Any, bucket: str) -> None:
    there = {"Bucket": bucket, "Key": "replaced"}
    s3.put_object(**there, Body=b"1", Tagging="stage=test", Metadata={"run": "1"})
    s3.put_object(**there, Body=b"2", Metadata={"run": "2"}, ContentType="image/png")
    head = s3.head_object(**there)
    assert (head["Metadata"], head["ContentType"]) == ({"run": "2"}, "image/png")
    assert s3.get_object_tagging(**there)["TagSet"] == []


KEYS = ["a", "a/b", "a/b/c", "a/d", "a0", "b/x", "b/y", "c", "ä/1", "ä/2", "日"]


@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("prefix", ["", "a", "a/", "ä/", "none"])
@pytest.mark.parametrize("page", [1, 1000])
@pytest.mark.parametrize("after", ["", "a/b"])
def test_a_list_is_what_s3_would_give(  # noqa: PLR0917
    s3: Any, listed: str, delimiter: str, prefix: str, page: int, after: str
) -> None:
    names = sorted(key for key in KEYS if key.startswith(prefix) and key > after)
    keys, folders = [], []
    for name in names:
        head, found, _ = name.removeprefix(prefix).partition(delimiter) if delimiter else (name, "", "")
        if found and prefix + head + found not in folders:
            folders.append(prefix + head + found)
        elif not found:
            keys.append(name)
    asked: dict[str, Any] = {"Bucket": listed, "Prefix": prefix, "MaxKeys": page, "StartAfter": after}
    if delimiter:
        asked["Delimiter"] = delimiter
    asked["PaginationConfig"] = {"PageSize": asked.pop("MaxKeys")}
    pages = list(s3.get_paginator("list_objects_v2").paginate(**asked))
    assert [entry["Key"] for one in pages for entry in one.get("Contents", [])] == keys
    assert [entry["Prefix"] for one in pages for entry in one.get("CommonPrefixes", [])] == [
        folder for folder in folders if not after.startswith(folder)
    ]
    assert all(one["KeyCount"] <= page for one in pages)


@pytest.fixture(scope="module")
def listed(s3: Any) -> str:
    """A bucket of KEYS, where other keys have been deleted."""
    s3.create_bucket(Bucket="listed")
    s3.put_bucket_versioning(Bucket="listed", VersioningConfiguration={"Status": "Enabled"})
    for key in [*KEYS, "a/gone", "c/gone"]:
        s3.put_object(Bucket="listed", Key=key, Body=b"1")
        s3.put_object(Bucket="listed", Key=key, Body=b"22")
    for key in ("a/gone", "c/gone"):
        s3.delete_object(Bucket="listed", Key=key)
    return "listed"
