"""Attacks by web pages, in a real browser: none reaches the API, S3 or a cookie."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import chromium
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.local_sagemaker.training_support import JobRunner, archive

ATTACKER = "attacker.example"
REBOUND = "rebound.example"

_CALL = """
async ([url, method, headers, body, mode]) => {
    try {
        const response = await fetch(url, {method, headers, body, mode, credentials: 'include'});
        return [response.type, response.status, await response.text()];
    } catch (error) { return ['error', 0, String(error)]; }
}
"""
_STORED = """<!doctype html><title>stored</title><a id="link" href="{link}">link</a>
<a id="window" href="{link}" target="_blank">window</a><p id="result"></p><script>
(async () => {{
    const results = {{origin: String(self.origin)}};
    try {{ results.cookie = document.cookie; }} catch (error) {{ results.cookie = error.name; }}
    for (const [name, mode] of [['cors', 'cors'], ['plain', 'no-cors'], ['same', 'same-origin']]) {{
        const headers = mode === 'no-cors' ? {{}} : {{'X-Amz-Target': 'SageMaker.CreateTrainingJob'}};
        try {{
            const response = await fetch('{url}', {{method: 'POST', headers, body: {request}, mode}});
            results[name] = response.type + response.status;
        }} catch (error) {{ results[name] = error.name; }}
    }}
    document.getElementById('result').textContent = JSON.stringify(results);
}})();
</script>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ", ".join(f"MAP {name} 127.0.0.1" for name in (ATTACKER, REBOUND))
    with chromium(f"--host-resolver-rules={names}") as started:
        yield started


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A web server of an attacker's own; its port."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text("<!doctype html><title>attack</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture(params=[ATTACKER, "127.0.0.1", "localhost"])
def attack(page: Page, attacker: int, request: pytest.FixtureRequest) -> Page:
    """A page of another site, and pages of other ports of this machine."""
    page.goto(f"http://{request.param}:{attacker}/index.html")
    return page


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> JobRunner:
    return JobRunner(runtime, bucket, role_arn)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for a job and for objects of the test's own."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name).strip("-").lower()


def _calls(page: Page, url: str, method: str, headers: dict[str, str], body: str) -> list[Any]:
    """What a page's script gets for a request, with preflight and without."""
    return [
        page.evaluate(_CALL, [url, method, headers, body, "cors"]),
        page.evaluate(_CALL, [url, "POST", {}, body, "no-cors"]),
    ]


def _no_job(jobs: JobRunner, name: str) -> bool:
    return not jobs.sagemaker.list_training_jobs(NameContains=name)["TrainingJobSummaries"]


def _refusals(runtime: RuntimeProcess, text: str) -> int:
    """How often the log says that a request of this text was refused: that an attack arrived at all."""
    return sum(line.count(text) for line in runtime.log().splitlines() if " Refused " in line)


def test_a_page_starts_no_job(attack: Page, jobs: JobRunner, name: str) -> None:
    request = jobs.request(name, "print('owned')")
    headers = {"X-Amz-Target": "SageMaker.CreateTrainingJob"}
    before = _refusals(jobs.runtime, "Refused OPTIONS /: "), _refusals(jobs.runtime, "Refused POST /: ")
    called, blind = _calls(attack, jobs.runtime.url + "/", "POST", headers, json.dumps(request))
    assert (called[0], blind[:2]) == ("error", ["opaque", 0])
    after = _refusals(jobs.runtime, "Refused OPTIONS /: "), _refusals(jobs.runtime, "Refused POST /: ")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
    assert _no_job(jobs, name)


def test_a_page_puts_and_reads_no_object(attack: Page, jobs: JobRunner, name: str) -> None:
    jobs.put(f"{name}/secret.html", b"secret")
    link = jobs.s3.generate_presigned_url(
        "get_object", Params={"Bucket": jobs.bucket, "Key": f"{name}/secret.html"}
    )
    code = archive({"train.py": "print('owned')"}).decode("latin1")
    path = f"/{jobs.bucket}/{name}/sourcedir.tar.gz"
    called, blind = _calls(attack, jobs.runtime.url + path, "PUT", {}, code)
    assert (called[0], blind[:2]) == ("error", ["opaque", 0])
    assert attack.evaluate(_CALL, [link, "GET", {}, None, "cors"])[0] == "error"
    assert jobs.keys(f"{name}/") == ["secret.html"]
    assert _refusals(jobs.runtime, f"Refused OPTIONS {path}") == 1
    load = "([tag, src]) => { document.body.append(Object.assign(document.createElement(tag), {src})); }"
    for tag in ("iframe", "img", "script"):
        attack.evaluate(load, [tag, link])
    refused = f"Refused GET /{jobs.bucket}/{name}/secret.html"
    wait_for(
        lambda: _refusals(jobs.runtime, refused) == 4, 20, "the refusal of fetch, iframe, img and script"
    )


@pytest.mark.parametrize("target", ["_self", "_blank", "frame"])
def test_a_form_puts_no_object(attack: Page, jobs: JobRunner, name: str, target: str) -> None:
    script = """([url, key, target]) => {
        const form = document.createElement('form');
        Object.assign(form, {action: url, method: 'post', enctype: 'multipart/form-data', target});
        for (const [name, value] of [['key', key], ['file', 'attack']]) {
            const field = document.createElement('textarea');
            Object.assign(field, {name, value});
            form.append(field);
        }
        const frame = document.createElement('iframe');
        frame.name = 'frame';
        document.body.append(form, frame);
        form.submit();
    }"""
    path = f"/{jobs.bucket}?{name}"
    with attack.context.expect_event("response", lambda response: response.url.endswith(path)) as sent:
        attack.evaluate(script, [jobs.runtime.url + path, f"{name}/form.txt", target])
    assert sent.value.status == 403
    assert jobs.keys(f"{name}/") == []


def test_a_name_that_resolves_to_this_machine_gets_nothing(page: Page, jobs: JobRunner, name: str) -> None:
    url = f"http://{REBOUND}:{jobs.runtime.port}/"
    shown = page.goto(f"{url}_local/health")
    assert shown is not None
    assert shown.status == 403
    assert "--allowed-host" in shown.text()
    headers = {"X-Amz-Target": "SageMaker.CreateTrainingJob"}
    body = json.dumps(jobs.request(name, "print('owned')"))
    kind, status, text = page.evaluate(_CALL, [url, "POST", headers, body, "same-origin"])
    assert kind == "error" or status == 403, text
    assert _no_job(jobs, name)


def test_a_stored_page_runs_apart(page: Page, jobs: JobRunner, name: str, attacker: int) -> None:
    elsewhere = f"http://127.0.0.1:{attacker}/index.html"
    request = json.dumps(json.dumps(jobs.request(name, "print('owned')")))
    page.context.add_cookies([{"name": "session", "value": "stolen", "url": jobs.runtime.url}])
    stored = _STORED.format(url=jobs.runtime.url, link=elsewhere, request=request)
    jobs.s3.put_object(Bucket=jobs.bucket, Key=f"{name}.html", Body=stored.encode(), ContentType="text/html")
    link = jobs.s3.generate_presigned_url("get_object", Params={"Bucket": jobs.bucket, "Key": f"{name}.html"})
    page.goto(elsewhere)
    page.evaluate("url => { location.href = url; }", link)
    page.wait_for_function("document.getElementById('result')?.textContent")
    results = json.loads(page.inner_text("#result"))
    assert results == {
        "origin": "null",
        "cookie": "SecurityError",
        "cors": "TypeError",
        "plain": "opaque0",
        "same": "TypeError",
    }
    assert _no_job(jobs, name)
    with page.expect_popup() as opened:
        page.click("#window")
    opened.value.wait_for_url(elsewhere)
    assert opened.value.evaluate("self.origin") == f"http://127.0.0.1:{attacker}"
    page.click("#link")
    page.wait_for_url(elsewhere)


def test_cookies_of_other_ports_are_neither_kept_nor_logged(page: Page, jobs: JobRunner, name: str) -> None:
    secret = f"cookie-of-airflow-{name}"
    page.context.add_cookies([{"name": "_token", "value": secret, "url": "http://127.0.0.1:8080"}])
    with page.expect_request(f"{jobs.runtime.url}/_local/health") as sent:
        page.goto(f"{jobs.runtime.url}/_local/health")
    assert secret in sent.value.all_headers()["cookie"]
    headers = {"X-Amz-Target": "SageMaker.ListModels"}
    kind, status, text = page.evaluate(_CALL, [jobs.runtime.url, "POST", headers, "{}", "same-origin"])
    page.evaluate(_CALL, [f"{jobs.runtime.url}/{jobs.bucket}/{name}", "PUT", {}, "x", "same-origin"])
    assert (kind, status, secret in text) in {("basic", 200, False), ("error", 0, False)}
    files = [path for path in jobs.runtime.root.rglob("*") if path.is_file()]
    assert jobs.runtime.log_file in files
    assert not [path for path in files if secret.encode() in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
