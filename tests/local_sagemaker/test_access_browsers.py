"""Requests as browsers send them: hosts, pages of other origins, preflights, cookies, stored pages."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_sagemaker.__main__ import main
from local_sagemaker.access.middleware import Access
from local_sagemaker.context import Settings
from starlette.types import Receive, Scope, Send

from tests.local_sagemaker.conftest import MakeRuntime
from tests.local_sagemaker.runtime_process import RuntimeProcess

FOREIGN = "http://attacker.example"
TARGET = {"x-amz-target": "SageMaker.ListTrainingJobs"}
NAVIGATION = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture(scope="module")
def named(make_runtime: MakeRuntime) -> RuntimeProcess:
    """A runtime with a name of its own."""
    return make_runtime(options=("--allowed-host", "sagemaker", "--allowed-host", "Models.Example"))


@pytest.fixture(scope="module")
def page(runtime: RuntimeProcess, bucket: str, s3: Any) -> str:
    """A link to a stored page."""
    s3.put_object(Bucket=bucket, Key="access/page.html", Body=b"<p>page</p>", ContentType="text/html")
    return _link(s3, bucket, "access/page.html")


def _link(s3: Any, bucket: str, key: str) -> str:
    return str(s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}))


def _list(runtime: RuntimeProcess, **headers: str) -> httpx.Response:
    """ListTrainingJobs, unsigned."""
    return httpx.post(runtime.url, headers={**TARGET, **headers}, content=b"{}")


def _message(response: httpx.Response) -> str:
    """The message of a refusal by a JSON service."""
    assert response.status_code == 403, response.text
    assert response.headers["x-amzn-errortype"] == "AccessDeniedException"
    return str(response.json()["message"])


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:4600", "localhost.", "127.0.0.1", "127.8.8.8:1", "[::1]:4600"]
)
def test_loopback_hosts_are_answered(runtime: RuntimeProcess, host: str) -> None:
    assert _list(runtime, host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "0.0.0.0",  # noqa: S104 - not bound but sent
        "192.168.1.5:4600",
        "localhost@attacker.example",
        "localhost:4600, attacker.example",
        "attacker.example/localhost",
        "_.localhost",
        "xlocalhost",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/_local/health", "/endpoints/e/invocations"])
def test_other_hosts_are_refused(runtime: RuntimeProcess, host: str, path: str) -> None:
    response = httpx.request(
        "GET" if path == "/_local/health" else "POST", runtime.url + path, headers={**TARGET, "host": host}
    )
    message = _message(response)
    assert "Host" in message
    assert "--allowed-host" in message


@pytest.mark.parametrize("hosts", [[], ["localhost", "attacker.example"], ["attacker.example", "localhost"]])
def test_a_request_without_one_host_is_refused(runtime: RuntimeProcess, hosts: list[str]) -> None:
    lines = ["GET /_local/health HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", runtime.port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        status = connection.makefile("rb").readline()
    assert re.match(rb"HTTP/1.1 40[03] ", status)


def test_configured_names_are_answered(named: RuntimeProcess) -> None:
    assert _list(named, host="sagemaker:4600").status_code == 200
    assert _list(named, host="models.example").status_code == 200
    assert "Host" in _message(_list(named, host="example"))


@pytest.mark.parametrize("name", ["http://sagemaker", "sagemaker:4600", "two words", ""])
def test_an_allowed_host_is_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([f"--allowed-host={name}"])
    assert "without scheme and port" in capsys.readouterr().err


def test_virtual_hosts_name_a_bucket(named: RuntimeProcess) -> None:
    named.client("s3").create_bucket(Bucket="virtual.host")
    named.client("s3").put_object(Bucket="virtual.host", Key="a b/c", Body=b"abc")
    for host in ("virtual.host.sagemaker", "virtual.host.localhost:4600"):
        query = httpx.URL(_link(named.client("s3"), "virtual.host", "a b/c")).query.decode()
        assert httpx.get(f"{named.url}/a%20b/c?{query}", headers={"host": host}).content == b"abc"
        put = httpx.put(f"{named.url}/endpoints/{host}", headers={"host": host}, content=b"abc")
        assert put.status_code == 200
        read = named.client("s3").get_object(Bucket="virtual.host", Key=f"endpoints/{host}")
        assert read["Body"].read() == b"abc"
    assert httpx.get(f"{named.url}/a", headers={"host": "virtual.host.example"}).status_code == 403


@pytest.mark.parametrize(
    "origin", [FOREIGN, "null", "http://localhost", "https://{host}", "http://{host}.attacker.example"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])
def test_other_origins_are_refused(runtime: RuntimeProcess, page: str, origin: str, method: str) -> None:
    headers = {"origin": origin.format(host=f"127.0.0.1:{runtime.port}")}
    response = httpx.request(method, page, headers=headers)
    assert response.status_code == 403
    if method != "HEAD":
        assert re.search(r"<Code>AccessDenied</Code><Message>.*Origin.*PutBucketCors", response.text)
    assert httpx.get(page).text == "<p>page</p>"


def test_other_origins_call_no_service(runtime: RuntimeProcess) -> None:
    assert FOREIGN in _message(_list(runtime, origin=FOREIGN))
    invoked = httpx.post(f"{runtime.url}/endpoints/e/invocations", headers={"origin": FOREIGN})
    assert FOREIGN in _message(invoked)
    scope = (
        "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0"
    )
    iam = httpx.post(
        runtime.url, headers={"origin": FOREIGN, "authorization": scope}, data={"Action": "ListUsers"}
    )
    assert iam.status_code == 403
    assert "<ErrorResponse><Error><Code>AccessDenied" in iam.text


def test_the_own_origin_is_not_foreign(runtime: RuntimeProcess) -> None:
    assert _list(runtime, origin=runtime.url).status_code == 200
    assert _list(runtime, host="localhost:1", origin="http://localhost:1").status_code == 200


def test_a_form_puts_no_object(runtime: RuntimeProcess, bucket: str, s3: Any) -> None:
    for headers in ({"origin": FOREIGN}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        files: Any = {"key": (None, "access/form.txt"), "file": ("form.txt", b"attack")}
        assert httpx.post(f"{runtime.url}/{bucket}", headers=headers, files=files).status_code == 403
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="access/form")
    assert listed["KeyCount"] == 0


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "changes",
    [
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
        {"sec-fetch-dest": "iframe"},
        {"sec-fetch-dest": ""},
    ],
)
def test_other_sites_load_nothing(page: str, site: str, changes: Mapping[str, str]) -> None:
    response = httpx.get(page, headers={**NAVIGATION, "sec-fetch-site": site, **changes})
    assert response.status_code == 403
    assert "Sec-Fetch-Site" in response.text


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
def test_a_link_opens_an_object(page: str, site: str) -> None:
    assert httpx.get(page, headers={**NAVIGATION, "sec-fetch-site": site}).text == "<p>page</p>"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "{page}", {}),
        ("DELETE", "{page}", {}),
        ("GET", "/", TARGET),
        ("GET", "{page}&Action=DeleteRole&Version=2010-05-08", {}),
        ("GET", "/iam_us-east-1/?Action=DeleteRole", {}),
        ("GET", "/iam_us-east-1/", {}),
        ("GET", "{page}", {"authorization": "AWS4 a/1/us-east-1/iam/aws4_request"}),
        ("GET", "/endpoints/e/invocations", {}),
    ],
)
def test_a_link_does_nothing_else(
    runtime: RuntimeProcess, page: str, method: str, path: str, headers: dict[str, str]
) -> None:
    url = runtime.url + path.format(page=page.removeprefix(runtime.url))
    response = httpx.request(method, url, headers={**NAVIGATION, **headers})
    assert response.status_code == 403
    assert "Sec-Fetch-Site" in response.text


def test_preflights_are_refused(runtime: RuntimeProcess, page: str) -> None:
    asked = {"origin": FOREIGN, "access-control-request-method": "PUT"}
    for url in (page, runtime.url, f"{runtime.url}/endpoints/e/invocations", f"{runtime.url}/_local/health"):
        response = httpx.options(url, headers=asked)
        assert response.status_code == 403
        assert "CORS" in response.text
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_responses_have_no_cors_headers(runtime: RuntimeProcess, page: str) -> None:
    for response in (httpx.get(page), _list(runtime), httpx.get(f"{runtime.url}/nobody")):
        assert not [name for name in response.headers if name.startswith("access-control")]


def _cors(**changes: list[str]) -> dict[str, Any]:
    rule = {
        "AllowedOrigins": ["https://*.good.example"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["x-amz-*"],
    }
    return {"CORSRules": [{**rule, "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60, **changes}]}


def test_a_bucket_allows_origins_itself_also_after_a_restart(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    s3 = runtime.client("s3")
    for name in ("open-bucket", "other-bucket"):
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="k", Body=b"x")
    s3.put_bucket_cors(Bucket="open-bucket", CORSConfiguration=_cors())
    runtime.kill()
    runtime.start()
    url, good = f"{runtime.url}/open-bucket/k", "https://www.good.example"
    asked = {
        "origin": good,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "x-amz-date, X-Amz-Acl",
    }
    preflight = httpx.options(url, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == good
    assert preflight.headers["access-control-allow-methods"] == "GET, PUT"
    assert preflight.headers["access-control-allow-headers"] == "x-amz-date, X-Amz-Acl"
    assert preflight.headers["access-control-max-age"] == "60"
    link = _link(s3, "open-bucket", "k")
    read = httpx.get(link, headers={"origin": good, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"})
    assert (read.content, read.headers["access-control-allow-origin"]) == (b"x", good)
    assert read.headers["access-control-expose-headers"] == "ETag"
    assert httpx.put(url + "2", headers={"origin": good}, content=b"y").status_code == 200
    for refused in (
        httpx.options(url, headers={**asked, "origin": good + ".attacker.example"}),
        httpx.options(url, headers={**asked, "access-control-request-method": "DELETE"}),
        httpx.options(url, headers={**asked, "access-control-request-headers": "x-amz-date, other"}),
        httpx.options(f"{runtime.url}/other-bucket/k", headers=asked),
        httpx.delete(url, headers={"origin": good}),
        httpx.get(f"{runtime.url}/other-bucket/k", headers={"origin": good}),
        httpx.post(url, headers={"origin": good, **TARGET}),
    ):
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


def test_stored_pages_run_apart(page: str, runtime: RuntimeProcess) -> None:
    for response in (httpx.get(page), httpx.get(page, headers=NAVIGATION), _list(runtime, origin=FOREIGN)):
        policy = response.headers["content-security-policy"].split()
        assert policy[0] == "sandbox"
        assert "allow-scripts" in policy
        assert "allow-same-origin" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_web_sockets_are_refused(runtime: RuntimeProcess) -> None:
    headers = {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "eA==",
    }
    assert httpx.get(f"{runtime.url}/", headers={**headers, "origin": FOREIGN}).status_code in {400, 403}


def test_any_keys_and_none_go_on_working(runtime: RuntimeProcess, page: str) -> None:
    assert httpx.get(page).text == "<p>page</p>"
    assert (
        httpx.put(page.replace("page.html", "copy.html").partition("?")[0], content=b"x").status_code == 200
    )
    command = [
        "curl",
        "--silent",
        "--data",
        "{}",
        "--header",
        f"X-Amz-Target: {TARGET['x-amz-target']}",
        runtime.url,
    ]
    curl = subprocess.run(command, capture_output=True, check=True)
    assert "TrainingJobSummaries" in json.loads(curl.stdout)


def test_cookies_reach_nobody(tmp_path: Path) -> None:
    """Seen from the app behind, to which everything is passed that jobs, endpoints and moto could get."""
    seen: list[Any] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Set-Cookie", b"a=b")]})
        await send({"type": "http.response.body"})

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Access(app, Settings(tmp_path, tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = [("Cookie", "_token=secret"), ("cookie", "other=secret"), ("X-Kept", "yes")]
            return await client.post("/endpoints/e/invocations", headers=headers)

    response = asyncio.run(ask())
    assert "set-cookie" not in response.headers
    assert (b"x-kept", b"yes") in seen[0]
    assert "secret" not in str(seen)


def test_refusals_are_logged_without_cookies(runtime: RuntimeProcess) -> None:
    _list(runtime, origin="http://logged.example", cookie="session=very-secret")
    log = runtime.log()
    assert "http://logged.example" in log
    assert "very-secret" not in log
