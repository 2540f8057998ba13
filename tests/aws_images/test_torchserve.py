"""The archive behind the real TorchServe of AWS's image for PyTorch 2.6, started by AWS's toolkit.

What the local SageMaker imitates must respond alike, also in what TorchServe does badly.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.aws_images.archives import REFUSALS, break_model, images, write_model
from tests.aws_images.servers import Server, free_port, local_server, poll, started

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="no Java: TorchServe cannot run here")
BIN = Path(sys.prefix) / "bin"
HANDLER = "sagemaker_pytorch_serving_container.handler_service"


@contextmanager
def torchserve(model: Path, folder: Path) -> Iterator[tuple[Server, Path]]:
    """TorchServe with the model behind AWS's handler, one worker as for one vCPU, and its log."""
    port, management, metrics, grpc, grpc_management = (free_port() for _ in range(5))
    log, store = folder / "torchserve.log", folder / "store"
    store.mkdir()
    (store / "model").symlink_to(model)
    config = folder / "config.properties"
    config.write_text(
        f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{management}\n"
        f"metrics_address=http://127.0.0.1:{metrics}\ndefault_workers_per_model=1\n"
        f"grpc_inference_port={grpc}\ngrpc_management_port={grpc_management}\n"
        "disable_token_authorization=true\nenable_envvars_config=true\ndecode_input_request=false\n"
        f"default_service_handler={HANDLER}:handle\n"
    )
    environment = {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(model / "code"),
        "SAGEMAKER_BASE_DIR": str(model.parent),
        "SAGEMAKER_PROGRAM": "inference.py",
        "LOG_LOCATION": str(folder),
        "METRICS_LOCATION": str(folder),
        "TEMP": str(folder),
    }
    command = [str(BIN / "torchserve"), "--start", "--foreground", "--ncs", "--disable-token-auth"]
    command += ["--model-store", str(store), "--ts-config", str(config), "--models", f"model={model}"]
    with started(command, log, environment, folder):
        base = f"http://127.0.0.1:{port}"
        yield Server(f"{base}/predictions/model", f"{base}/ping"), log


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m") / "opt_ml" / "model"
    folder.mkdir(parents=True)
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with torchserve(model, tmp_path_factory.mktemp("t")) as (server, _):
        poll(lambda: server.ask(b"")[0] == 400, 120, "the model to be loaded")
        yield server


def test_the_local_server_gives_the_same_probabilities(served: Server, model: Path, tmp_path: Path) -> None:
    with local_server("torchserve", model, tmp_path) as local:
        for image in images():
            assert served.probabilities(image) == pytest.approx(local.probabilities(image), abs=1e-5)


@pytest.mark.parametrize(("body", "content_type", "status", "reason"), REFUSALS)
def test_a_refusal_has_a_status_and_a_reason(
    served: Server, body: bytes, content_type: str, status: int, reason: str
) -> None:
    refused, text = served.ask(body, content_type)
    assert refused == status
    assert reason in text


def test_a_model_that_does_not_load_is_healthy_all_the_same(tmp_path: Path) -> None:
    """So an endpoint with it is in service on AWS, and so it is locally."""
    model = tmp_path / "model"
    model.mkdir()
    write_model(model)
    break_model(model)
    with torchserve(model, tmp_path) as (server, log):
        poll(lambda: "cannot be read as weights" in log.read_text(), 120, "an attempt to load the model")
        assert server.status() == 200
        assert server.ask(images()[0], seconds=3)[0] != 200
        assert server.status() == 200
