"""S3 over HTTP and within the process, and what survives a crash."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests.local_sagemaker.conftest import MakeRuntime
from tests.local_sagemaker.runtime_process import RuntimeProcess

_POLICY = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
)
AWKWARD_KEYS = [
    "plain.txt",
    "with space.jpg",
    "plus+sign&and=equals",
    "percent%2Fencoded%25",
    "täst/日本.png",
    "double//slash",
    "/leading",
    "trailing/",
    "tilde~()'*!",
]


@pytest.fixture(scope="module")
def crashing(make_runtime: MakeRuntime) -> RuntimeProcess:
    """A runtime that tests of this module kill and start again."""
    return make_runtime()


@pytest.fixture
def restart(crashing: RuntimeProcess) -> Any:
    def kill_and_start() -> None:
        crashing.kill()
        crashing.start()

    return kill_and_start


@pytest.fixture
def own(crashing: RuntimeProcess, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = "b-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:20]
    crashing.client("s3").create_bucket(Bucket=name)
    return name


def _keys(s3: Any, bucket: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_an_object_survives_with_metadata_and_tags(crashing: RuntimeProcess, own: str, restart: Any) -> None:
    s3 = crashing.client("s3")
    s3.put_object(
        Bucket=own,
        Key="a/b.json",
        Body=b'{"x": 1}',
        ContentType="application/json",
        ContentEncoding="identity",
        Metadata={"breed": "Chihuahua", "with_underscore": "kept"},
        Tagging="run=1&stage=test",
    )
    before = s3.head_object(Bucket=own, Key="a/b.json")
    restart()
    after = s3.get_object(Bucket=own, Key="a/b.json")
    assert after["Body"].read() == b'{"x": 1}'
    for member in ("ContentType", "ContentEncoding", "Metadata", "ETag", "LastModified", "ContentLength"):
        assert after[member] == before[member]
    assert after["Metadata"] == {"breed": "Chihuahua", "with_underscore": "kept"}
    tags = s3.get_object_tagging(Bucket=own, Key="a/b.json")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"run": "1", "stage": "test"}


@pytest.mark.parametrize("key", AWKWARD_KEYS)
def test_awkward_keys_are_kept_apart(runtime: RuntimeProcess, s3: Any, bucket: str, key: str) -> None:
    s3.put_object(Bucket=bucket, Key=f"awkward/{key}", Body=key.encode())
    assert s3.get_object(Bucket=bucket, Key=f"awkward/{key}")["Body"].read() == key.encode()


def test_awkward_keys_survive(crashing: RuntimeProcess, own: str, restart: Any) -> None:
    s3 = crashing.client("s3")
    for key in AWKWARD_KEYS:
        s3.put_object(Bucket=own, Key=key, Body=key.encode())
    restart()
    assert sorted(_keys(s3, own)) == sorted(AWKWARD_KEYS)
    for key in AWKWARD_KEYS:
        assert s3.get_object(Bucket=own, Key=key)["Body"].read() == key.encode()


def test_overwriting_copying_and_deleting_survive(crashing: RuntimeProcess, own: str, restart: Any) -> None:
    s3 = crashing.client("s3")
    for number in range(5):
        s3.put_object(Bucket=own, Key=f"many/{number}", Body=b"x", Metadata={"number": str(number)})
    s3.put_object(Bucket=own, Key="once", Body=b"old")
    s3.put_object(Bucket=own, Key="once", Body=b"new")
    s3.copy_object(Bucket=own, Key="copy", CopySource={"Bucket": own, "Key": "many/4"})
    s3.delete_object(Bucket=own, Key="many/0")
    s3.delete_objects(Bucket=own, Delete={"Objects": [{"Key": "many/1"}, {"Key": "many/2"}]})
    restart()
    assert _keys(s3, own) == ["copy", "many/3", "many/4", "once"]
    assert s3.get_object(Bucket=own, Key="once")["Body"].read() == b"new"
    assert s3.head_object(Bucket=own, Key="copy")["Metadata"] == {"number": "4"}


def test_versions_and_delete_markers_survive(crashing: RuntimeProcess, own: str, restart: Any) -> None:
    s3 = crashing.client("s3")
    s3.put_bucket_versioning(Bucket=own, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=own, Key="k", Body=b"first")["VersionId"]
    s3.put_object(Bucket=own, Key="k", Body=b"second")
    s3.delete_object(Bucket=own, Key="k")
    restart()
    assert s3.get_object(Bucket=own, Key="k", VersionId=first)["Body"].read() == b"first"
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=own, Key="k")
    listed = s3.list_object_versions(Bucket=own)
    assert len(listed["Versions"]) == 2
    assert len(listed["DeleteMarkers"]) == 1
    assert s3.get_bucket_versioning(Bucket=own)["Status"] == "Enabled"


def test_multipart_upload_survives_and_downloads_whole(
    crashing: RuntimeProcess, own: str, restart: Any, tmp_path: Path
) -> None:
    content = os.urandom(20 * 1024 * 1024 + 17)
    file = tmp_path / "model.tar.gz"
    file.write_bytes(content)
    s3 = crashing.client("s3")
    about = {"ContentType": "application/gzip", "Metadata": {"run": "7"}, "Tagging": "stage=test"}
    s3.upload_file(str(file), own, "model.tar.gz", ExtraArgs=about)
    restart()
    head = s3.head_object(Bucket=own, Key="model.tar.gz")
    assert head["ETag"].strip('"').endswith("-3")
    assert (head["ContentType"], head["Metadata"]) == ("application/gzip", {"run": "7"})
    tags = s3.get_object_tagging(Bucket=own, Key="model.tar.gz")["TagSet"]
    assert tags == [{"Key": "stage", "Value": "test"}]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=own)
    s3.download_file(own, "model.tar.gz", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


def _upload_parts(s3: Any, bucket: str, key: str, parts: list[bytes]) -> tuple[str, list[dict[str, Any]]]:
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    done = []
    for number, content in enumerate(parts, 1):
        response = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=content)
        done.append({"PartNumber": number, "ETag": response["ETag"]})
    return upload, done


def _complete(s3: Any, bucket: str, key: str, upload: str, parts: list[dict[str, Any]]) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
    )


def test_multipart_upload_out_of_order_is_refused(s3: Any, bucket: str) -> None:
    upload, parts = _upload_parts(s3, bucket, "parts", [b"small", b"last"])
    with pytest.raises(ClientError, match="EntityTooSmall"):
        _complete(s3, bucket, "parts", upload, parts)
    with pytest.raises(ClientError, match="InvalidPart"):
        _complete(s3, bucket, "parts", upload, [{"PartNumber": 2, "ETag": '"0123"'}])
    with pytest.raises(ClientError, match="NoSuchUpload"):
        _complete(s3, bucket, "parts", "unknown", parts)
    assert _complete(s3, bucket, "parts", upload, parts[1:])["Key"] == "parts"
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == b"last"
    with pytest.raises(ClientError, match="NoSuchUpload"):
        _complete(s3, bucket, "parts", upload, parts[1:])


def test_multipart_upload_to_a_versioned_bucket(crashing: RuntimeProcess, own: str) -> None:
    s3 = crashing.client("s3")
    s3.put_bucket_versioning(Bucket=own, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=own, Key="a & b", Body=b"before")
    upload, parts = _upload_parts(s3, own, "a & b", [b"after"])
    version = _complete(s3, own, "a & b", upload, parts)["VersionId"]
    assert s3.get_object(Bucket=own, Key="a & b", VersionId=version)["Body"].read() == b"after"
    assert len(s3.list_object_versions(Bucket=own)["Versions"]) == 2


@pytest.mark.parametrize("size", [1000, 3_000_000])
@pytest.mark.parametrize("asked", ["bytes=10-19", "bytes=-7", "bytes=990-"])
def test_ranges(s3: Any, bucket: str, size: int, asked: str) -> None:
    content = os.urandom(size)
    s3.put_object(Bucket=bucket, Key=f"range/{size}", Body=content)
    response = s3.get_object(Bucket=bucket, Key=f"range/{size}", Range=asked)
    first, last = asked.removeprefix("bytes=").split("-")
    expected = content[-int(last) :] if not first else content[int(first) : int(last) + 1 if last else None]
    assert response["Body"].read() == expected
    assert response["ContentLength"] == len(expected)


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_conditional_get(s3: Any, bucket: str, size: int) -> None:
    etag = s3.put_object(Bucket=bucket, Key="conditional", Body=os.urandom(size))["ETag"]
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="conditional", IfNoneMatch=etag)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.get_object(Bucket=bucket, Key="conditional", IfMatch='"other"')


def test_deleted_bucket_stays_deleted(crashing: RuntimeProcess, own: str, restart: Any) -> None:
    s3 = crashing.client("s3")
    s3.put_bucket_tagging(Bucket=own, Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    s3.create_bucket(Bucket="kept-bucket")
    s3.delete_bucket(Bucket=own)
    restart()
    names = [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert own not in names
    assert "kept-bucket" in names


def test_role_survives(crashing: RuntimeProcess, restart: Any) -> None:
    iam = crashing.client("iam")
    iam.create_role(RoleName="Kept", AssumeRolePolicyDocument="{}", Path="/service-role/")
    iam.attach_role_policy(RoleName="Kept", PolicyArn="arn:aws:iam::aws:policy/AmazonSageMakerFullAccess")
    own = iam.create_policy(PolicyName="Own", PolicyDocument=_POLICY)["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="Kept", PolicyArn=own)
    iam.put_role_policy(RoleName="Kept", PolicyName="Inline", PolicyDocument=_POLICY)
    iam.create_role(RoleName="Gone", AssumeRolePolicyDocument="{}")
    iam.delete_role(RoleName="Gone")
    before = iam.get_role(RoleName="Kept")["Role"]
    restart()
    assert iam.get_role(RoleName="Kept")["Role"] == before
    attached = iam.list_attached_role_policies(RoleName="Kept")["AttachedPolicies"]
    assert {policy["PolicyName"] for policy in attached} == {"AmazonSageMakerFullAccess", "Own"}
    assert iam.list_role_policies(RoleName="Kept")["PolicyNames"] == ["Inline"]
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_role(RoleName="Gone")


def test_every_acknowledged_write_survives_a_kill_in_the_middle(crashing: RuntimeProcess, own: str) -> None:
    """Writers continue until the process is killed; acknowledged objects must be complete afterwards."""
    acknowledged: list[tuple[str, str]] = []
    begun = threading.Event()

    def write(writer: int) -> None:
        s3 = crashing.client("s3", connect_timeout=2, read_timeout=10)
        for number in range(100_000):
            content = os.urandom(1 + (number * 7919) % 40_000)
            key = f"{writer}/{number % 50}"
            try:
                s3.put_object(Bucket=own, Key=key, Body=content)
            except (HTTPClientError, ClientError):
                return
            acknowledged.append((key, hashlib.md5(content, usedforsecurity=False).hexdigest()))
            if len(acknowledged) >= 100:
                begun.set()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in writers:
        thread.start()
    assert begun.wait(60)
    crashing.kill()
    for thread in writers:
        thread.join(60)
    crashing.start()

    s3 = crashing.client("s3")
    last = dict(acknowledged)
    for key, digest in last.items():
        response = s3.get_object(Bucket=own, Key=key)
        found = hashlib.md5(response["Body"].read(), usedforsecurity=False).hexdigest()
        assert response["ETag"] == f'"{found}"', "the object is whole"
        unacknowledged = found != digest
        assert not unacknowledged or _may_be_newer(key, acknowledged, found)


def _may_be_newer(key: str, acknowledged: list[tuple[str, str]], found: str) -> bool:
    """A write in progress at the kill may have been made; older content must not be back."""
    return (key, found) not in acknowledged


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(s3: Any, written: dict[str, bytes]) -> None:
    for number in range(100):
        content = os.urandom(1_000_000)
        s3.put_object(Bucket="dogs", Key=f"k/{number}", Body=content)
        written[f"k/{number}"] = content


def test_a_full_disk_is_reported_and_loses_nothing(make_runtime: MakeRuntime, small_disk: Path) -> None:
    runtime = make_runtime(small_disk / "root")
    s3 = runtime.client("s3")
    s3.create_bucket(Bucket="dogs")
    written: dict[str, bytes] = {}
    with pytest.raises(ClientError) as caught:
        _fill(s3, written)
    assert caught.value.response["Error"]["Code"] == "InsufficientStorage"
    assert "disk is full" in caught.value.response["Error"]["Message"]
    with pytest.raises(ClientError, match="InsufficientStorage"):
        s3.put_object(Bucket="dogs", Key="k/0", Body=os.urandom(1_000_000))

    for _ in range(2):
        assert _keys(s3, "dogs") == sorted(written)
        for key, content in written.items():
            assert s3.get_object(Bucket="dogs", Key=key)["Body"].read() == content
        runtime.kill()
        runtime.start()

    for key in written:
        s3.delete_object(Bucket="dogs", Key=key)
    runtime.kill()
    runtime.start()
    s3.put_object(Bucket="dogs", Key="after", Body=os.urandom(1_000_000))
    runtime.close()


def test_upload_cut_off_leaves_the_old_object(runtime: RuntimeProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="cut", Body=b"old")

    def half() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionAbortedError

    headers = {"Content-Length": "200000", "Authorization": _credential("s3")}
    with pytest.raises(ConnectionAbortedError):
        httpx.put(f"{runtime.url}/{bucket}/cut", content=half(), headers=headers)
    assert s3.get_object(Bucket=bucket, Key="cut")["Body"].read() == b"old"


def _credential(service: str) -> str:
    return f"AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/{service}/aws4_request, Signature=x"


def test_presigned_url(runtime: RuntimeProcess, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="signed", Body=b"hello")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "signed"})
    assert httpx.get(url).content == b"hello"


def test_missing_object_and_bucket(s3: Any, bucket: str) -> None:
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="missing")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.list_objects_v2(Bucket="missing-bucket")


def test_reset_of_moto_is_not_reachable(runtime: RuntimeProcess) -> None:
    assert httpx.post(f"{runtime.url}/moto-api/reset").status_code == 404


def test_listing_comes_in_pages(s3: Any, bucket: str) -> None:
    for number in range(25):
        s3.put_object(Bucket=bucket, Key=f"pages/{number:02}", Body=b"x")
    paginator = s3.get_paginator("list_objects_v2")
    pages = list(paginator.paginate(Bucket=bucket, Prefix="pages/", PaginationConfig={"PageSize": 10}))
    assert [page["KeyCount"] for page in pages] == [10, 10, 5]
