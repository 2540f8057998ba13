"""The archive behind the real Ray Serve of AWS's image, started as that image starts it.

AWS's adapter on port 8080 passes requests on to Ray Serve and answers /ping by its `/-/healthz`; the tests
ask Ray Serve itself. What the local SageMaker imitates must respond alike.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.aws_images.archives import REFUSALS, break_model, images, write_model
from tests.aws_images.servers import Server, free_port, local_server, poll, started

BIN = Path(sys.prefix) / "bin"


@contextmanager
def ray_serve(model: Path, folder: Path) -> Iterator[tuple[Server, Path]]:
    """Ray Serve with the model's application, and its log."""
    ray_port, port, log = free_port(), free_port(), folder / "serve.log"
    environment = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "PYTHONPATH": f"{model}:{model / 'code'}",  # as the image's entry point sets it
        "RAY_ADDRESS": f"127.0.0.1:{ray_port}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }

    def run(*command: str) -> None:
        with started([str(BIN / command[0]), *command[1:]], log, environment, folder) as process:
            assert process.wait(120) == 0, log.read_text()

    # short, because the names of Ray's sockets are limited to 107 characters
    with tempfile.TemporaryDirectory(prefix="r") as temporary:
        head = ("--head", f"--port={ray_port}", "--include-dashboard=False", "--num-gpus=0")
        run("ray", "start", *head, f"--temp-dir={temporary}")
        try:
            run("serve", "start", "--http-host=127.0.0.1", f"--http-port={port}")
            base = f"http://127.0.0.1:{port}"
            application = [str(BIN / "serve"), "run", str(model / "config.yaml")]
            with started(application, log, environment, folder):
                yield Server(f"{base}/", f"{base}/-/healthz"), log
        finally:
            subprocess.run([BIN / "ray", "stop", "--force"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m") / "opt_ml" / "model"
    folder.mkdir(parents=True)
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ray_serve(model, tmp_path_factory.mktemp("r")) as (server, _):
        poll(lambda: server.status() == 200, 120, "the model's health")
        yield server


def test_the_local_server_gives_the_same_probabilities(served: Server, model: Path, tmp_path: Path) -> None:
    with local_server("ray-serve", model, tmp_path) as local:
        for image in images():
            assert served.probabilities(image) == pytest.approx(local.probabilities(image), abs=1e-5)


@pytest.mark.parametrize(("body", "content_type", "status", "reason"), REFUSALS)
def test_a_refusal_has_a_status_and_a_reason(
    served: Server, body: bytes, content_type: str, status: int, reason: str
) -> None:
    refused, text = served.ask(body, content_type)
    assert refused == status
    assert reason in text


def test_a_model_that_does_not_load_is_never_healthy_and_the_log_says_why(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_model(model)
    break_model(model)
    with ray_serve(model, tmp_path) as (server, log):
        seen = set()

        def tried() -> bool:
            seen.add(server.status())
            return "cannot be read as weights" in log.read_text()

        poll(tried, 120, "the application to fail")
        later = time.monotonic() + 5  # for what might come after
        poll(lambda: tried() and time.monotonic() > later, 30, "five seconds more")
        assert 200 not in seen
