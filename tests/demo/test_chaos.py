"""What chaos is made of: the network, the disk, the moments, and checks that do find what is wrong."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError

from demo.chaos import checks, faults, network
from demo.chaos.network import Network


class Echo(BaseHTTPRequestHandler):
    """Responds to every request with an empty JSON object, and counts."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        self.respond(b"{}")

    def do_PUT(self) -> None:
        self.respond(b"")

    def respond(self, body: bytes) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Echo]]:
    class Counting(Echo):
        asked = 0

    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Counting.port = server.server_port  # type: ignore[attr-defined]
        yield Counting
        server.shutdown()


@pytest.fixture
def disturbed(server: type[Echo]) -> Iterator[Network]:
    with Network() as connection:
        connection.target = server.port  # type: ignore[attr-defined]
        yield connection


def client(connection: Network, service: str = "sagemaker", attempts: int = 1) -> Any:
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=1, connect_timeout=1
    )
    session = boto3.Session("any", "any", region_name="us-east-1")
    return session.client(service, endpoint_url=connection.url, config=config)  # type: ignore[call-overload]


def test_an_undisturbed_network_passes_everything_on(disturbed: Network, server: type[Echo]) -> None:
    sagemaker = client(disturbed)
    for _ in range(3):
        sagemaker.list_training_jobs()
    client(disturbed, "s3").put_object(Bucket="dogs", Key="large", Body=b"x" * 3_000_000)
    assert server.asked == 4


@pytest.mark.parametrize("mode", [network.CUT, network.LOST])
def test_a_broken_connection_is_an_error_at_once(disturbed: Network, server: type[Echo], mode: str) -> None:
    """A lost response is that of a request which was carried out."""
    disturbed.disturb(mode, 60)
    with pytest.raises(ConnectionClosedError):
        client(disturbed).list_training_jobs()
    assert server.asked == (mode == network.LOST)


def test_a_connection_that_is_open_already_is_cut_too(disturbed: Network, server: type[Echo]) -> None:
    sagemaker = client(disturbed)
    sagemaker.list_training_jobs()
    disturbed.disturb(network.CUT, 60)
    with pytest.raises(ConnectionClosedError):
        sagemaker.list_training_jobs()
    assert server.asked == 1


def test_a_silent_network_takes_the_clients_own_time_out(disturbed: Network, server: type[Echo]) -> None:
    disturbed.disturb(network.SILENCE, 60)
    with pytest.raises(ReadTimeoutError):
        client(disturbed).list_training_jobs()
    assert server.asked == 0


@pytest.mark.parametrize(
    ("call", "mode", "error"),
    [
        ("sagemaker.list_training_jobs", network.THROTTLING, ("ThrottlingException", 400)),
        ("sagemaker.list_training_jobs", network.ERROR, ("InternalFailure", 500)),
        ("cloudwatch.describe_alarms", network.THROTTLING, ("ThrottlingException", 400)),
        ("logs.describe_log_groups", network.ERROR, ("InternalFailure", 500)),
        ("s3.list_buckets", network.THROTTLING, ("SlowDown", 503)),
        ("s3.list_buckets", network.ERROR, ("InternalError", 500)),
        ("sts.get_caller_identity", network.THROTTLING, ("Throttling", 400)),
        ("iam.list_roles", network.ERROR, ("InternalFailure", 500)),
    ],
)
def test_every_service_refuses_in_its_own_form(
    disturbed: Network, server: type[Echo], call: str, mode: str, error: tuple[str, int]
) -> None:
    service, _, operation = call.partition(".")
    disturbed.disturb(mode, 60)
    with pytest.raises(ClientError) as refused:
        getattr(client(disturbed, service), operation)()
    response = refused.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == error
    assert server.asked == 0


def test_a_large_upload_is_refused_too(disturbed: Network) -> None:
    disturbed.disturb(network.THROTTLING, 60)
    with pytest.raises(ClientError, match="SlowDown"):
        client(disturbed, "s3").put_object(Bucket="dogs", Key="large", Body=b"x" * 3_000_000)


def test_a_disturbance_ends_and_boto3_gets_through(disturbed: Network, server: type[Echo]) -> None:
    disturbed.disturb(network.THROTTLING, 0.3)
    client(disturbed, attempts=8).list_training_jobs()
    assert server.asked == 1
    disturbed.wait()
    assert disturbed.mode is None


LENGTHS = {"tune": 10.0, "train": 5.0, "gate": 0.5}
TARGETS = [*faults.PROCESSES, *network.MODES]


def test_the_same_seed_draws_the_same_faults_and_every_target_once_a_round() -> None:
    first, again, other = (
        list(itertools.islice(faults.draw(random.Random(seed), LENGTHS, TARGETS), 2 * len(TARGETS)))
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(fault.target for fault in first[: len(TARGETS)]) == sorted(TARGETS)
    for fault in first:
        assert 0 <= fault.after <= LENGTHS[fault.task] + 0.1
        assert fault.seconds <= faults.LONGEST_SECONDS
        assert (fault.seconds == 0) == (fault.target in faults.PROCESSES)


def test_a_full_disk_is_full_until_it_is_not(tmp_path: Path) -> None:
    with faults.small_disk(tmp_path / "disk", 4 << 20) as disk:
        if disk is None:
            pytest.skip("mounting a small file system is not permitted here")
        (disk / "kept").write_bytes(b"kept")
        filling = threading.Thread(target=faults.fill, args=(disk, 1.0))
        filling.start()
        while os.statvfs(disk).f_bavail:
            time.sleep(0.01)
        with pytest.raises(OSError, match="No space left") as full:
            (disk / "more").write_bytes(b"x" * 10_000)
        assert full.value.errno == errno.ENOSPC
        filling.join()
        (disk / "more").write_bytes(b"x" * 10_000)
        assert sorted(path.name for path in disk.iterdir()) == ["kept", "more"]
    assert not os.path.ismount(tmp_path / "disk")


def test_a_runs_keys_do_not_tell_which_run_it_was() -> None:
    keys = dict.fromkeys(
        [
            "a/drills-2611262326-d3ce/report.html",
            "a/drills-2611262326-d3ce-r2/model.tar.gz",
            "a/drills-2611262326-d3ce/evaluation/d009b7f1/predictions.jsonl",
            "a/drills-2611262326-d3ce-001-0123abcd/model.tar.gz",
            "a/drills-2611262326-d3ce/evaluation/d009b7f1/confident_errors.png",
            "a/drills-2611262325-aaaa/report.html",
        ],
        "",
    )
    assert checks.run_keys(keys, "drills-2611262326-d3ce") == {
        "a/RUN/report.html",
        "a/RUN/model.tar.gz",
        "a/RUN/evaluation/DIGEST/predictions.jsonl",
    }


def test_findings_are_lines_of_their_kind() -> None:
    findings = checks.Findings(lost=["a"], failed=["b", "c"])
    assert list(findings.lines()) == ["lost: a", "failed: b", "failed: c"]


def test_nothing_listens_where_the_network_has_ended() -> None:
    with Network() as connection:
        port = connection.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
