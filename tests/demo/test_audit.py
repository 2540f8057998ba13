"""`make audit`: the real pip-audit, against a database of vulnerabilities on this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo.audit import PINNED

ROOT = Path(__file__).parents[2]
WEAK = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-0001"],
    "summary": "weak",
    "affected": [
        {
            "package": {"name": "weak", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
            "versions": ["1.0"],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """OSV's query, for which only `weak` has a vulnerability."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"vulns": [WEAK]} if query["package"]["name"] == "weak" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    """The address of a database of vulnerabilities."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()
    thread.join()


def audit(folder: Path, database: str, pins: str, exceptions: str = "") -> tuple[int, str]:
    """Exit status and output of an audit."""
    (folder / "pins.txt").write_text(pins)
    (folder / "exceptions.toml").write_text(exceptions)
    arguments = [str(folder / "pins.txt"), "--exceptions", str(folder / "exceptions.toml")]
    ended = subprocess.run(
        [sys.executable, "-m", "demo.audit", *arguments, "--osv-url", database],
        cwd=ROOT,
        env={**os.environ, "LOCAL_DIR": str(Path(sys.prefix).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


EXCEPTION = '[[exception]]\npackage = "weak"\nid = "CVE-2026-0001"\nreason = "not called"\n'


@pytest.mark.parametrize(
    ("pins", "exceptions", "status", "words"),
    [
        ("strong==1.0\n", "", 0, "1 packages, 0 vulnerabilities, 0 exceptions"),
        ("strong==1.0\nweak==1.0\n", "", 1, "weak 1.0: CVE-2026-0001, GHSA-aaaa-bbbb-cccc (fixed in 2.0)"),
        ("strong==1.0\nweak==1.0\n", EXCEPTION, 0, "2 packages, 0 vulnerabilities, 1 exceptions"),
        ("strong==1.0\n", EXCEPTION, 1, "no longer needed"),
        ("strong>=1.0\n", "", 2, "could not tell: "),
    ],
)
def test_the_verdict(  # noqa: PLR0917
    tmp_path: Path, database: str, pins: str, exceptions: str, status: int, words: str
) -> None:
    code, output = audit(tmp_path, database, pins, exceptions)
    assert words in output
    assert code == status, output


def test_without_the_database_there_is_no_verdict(tmp_path: Path) -> None:
    code, output = audit(tmp_path, "http://127.0.0.1:9/v1/query", "strong==1.0\n", EXCEPTION)
    assert "could not tell" in output
    assert code == 2


def test_every_file_with_pins_is_audited_or_aws_s() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pinned = {
        name
        for name in listed.split()
        if name.endswith(".txt") and re.search(r"^[\w.-]+==", (ROOT / name).read_text(), re.MULTILINE)
    }
    of_aws = {name for name in pinned if name.startswith(("tests/aws_images/", "tests/airflow_versions/"))}
    assert pinned - of_aws - {"requirements-mwaa.txt"} == set(PINNED)  # a part of requirements.txt
