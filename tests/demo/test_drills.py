"""What the drills are made of: broken datasets, broken code, and a client that counts."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError
from PIL import Image, UnidentifiedImageError
from retraining.config.pipeline import load_pipeline

from demo.aws import Aws
from demo.drills import data, drills
from demo.drills.faults import FAULTS, write_source
from demo.drills.traffic import Tally, Traffic
from demo.drills.world import CHANGES, World, write_dags
from demo.sample_dataset import Plan, draw_dataset
from demo.settings import ROOT, DemoError
from tests.local_sagemaker.runtime_process import wait_for


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, Plan(train=6, valid=2, test=5, side=32))
    return folder


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "data"))


def contents(folder: Path) -> Counter[bytes]:
    return Counter(path.read_bytes() for path in folder.rglob("*.jpg"))


def test_labels_are_shuffled_and_no_picture_is_lost(folder: Path, drawn: Path) -> None:
    data.confused(folder)
    first, *others = data.classes(folder)
    assert contents(first) == contents(drawn / "train" / first.name)
    assert contents(folder / "train") == contents(drawn / "train")
    assert any(contents(breed) != contents(drawn / "train" / breed.name) for breed in others)
    assert contents(folder / "test") == contents(drawn / "test")


def test_damaged_pictures_cannot_be_read(folder: Path) -> None:
    data.damaged(folder)
    first, second, third, *_ = data.images(data.classes(folder)[0])
    with pytest.raises(UnidentifiedImageError):
        Image.open(first)
    with pytest.raises(OSError, match=r"(?i)truncated"), Image.open(second) as image:
        image.load()
    with Image.open(third) as image:
        image.load()


def test_leaking_pictures_stand_in_two_splits(folder: Path, drawn: Path) -> None:
    data.leaking(folder)
    assert len(contents(folder / "train") & contents(drawn / "test")) == len(data.classes(folder))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_python_that_replaces_one_function(fault: str, tmp_path: Path) -> None:
    write_source(ROOT / "sagemaker_code", tmp_path / "source", fault)
    sound, broken = (
        (folder / "deployment.py").read_text() for folder in (ROOT / "sagemaker_code", tmp_path / "source")
    )
    assert broken.startswith(sound)
    compile(broken, "deployment.py", "exec")
    write_source(ROOT / "sagemaker_code", tmp_path / "source", None)
    assert (tmp_path / "source" / "deployment.py").read_text() == sound


def test_the_drills_pipeline_is_valid(tmp_path: Path) -> None:
    write_dags(tmp_path, "drills", CHANGES)
    pipeline = load_pipeline(tmp_path / "pipelines" / "drills.yaml")
    assert (pipeline.endpoint_name, pipeline.schedule, pipeline.debugger) == ("drills", None, "off")
    assert pipeline.job == load_pipeline(ROOT / "dags" / "pipelines" / "dog_breed.yaml").job


@contextmanager
def serving(failing: Callable[[], bool], port: int = 0) -> Iterator[int]:
    """A service in which requests fail as the function says; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            fails = self.path.endswith("/invocations") and failing()
            body = b'{"EndpointStatus": "InService"}'
            self.send_response(500 if fails else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A service in which every third request fails."""
    counter = iter(range(10_000))
    lock = threading.Lock()

    def every_third() -> bool:
        with lock:
            return next(counter) % 3 == 2

    with serving(every_third) as port:
        yield f"http://127.0.0.1:{port}"


def test_the_client_counts_every_failed_request_once(endpoint: str) -> None:
    total = Tally()

    def counted() -> bool:
        taken = client.take()
        total.requests += taken.requests
        total.failures += taken.failures
        return total.requests >= 9

    with Traffic(Aws(endpoint), "any", [b"image"]) as client:
        wait_for(counted, 30, "nine requests")
    counted()
    assert total.failed == total.requests // 3
    assert set(total.failures) == {"HTTP 500"}


def test_a_patient_client_waits_for_a_server_that_is_away_and_counts_its_errors() -> None:
    failures: list[bool] = []
    asked, refused = threading.Event(), threading.Event()

    class Watched(Traffic):
        def _ask_once(self, client: Any, image: bytes) -> str | None:
            try:
                return super()._ask_once(client, image)
            except EndpointConnectionError:
                refused.set()
                raise

    def counted() -> bool:
        asked.set()
        return bool(failures)

    with ExitStack() as stack:
        with serving(counted) as port:
            client = stack.enter_context(
                Watched(Aws(f"http://127.0.0.1:{port}"), "any", [b"image"], patient=True)
            )
            assert asked.wait(30)
        client.take()
        asked.clear()
        assert refused.wait(30)
        with serving(counted, port):
            assert asked.wait(30)
            assert client.take().failed == 0
            failures.append(True)
            total = Tally()
            wait_for(
                lambda: bool(total.failures.update(client.take().failures) or total.failed), 30, "errors"
            )
            assert set(total.failures) == {"HTTP 500"}


@pytest.mark.parametrize("error", [drills.DrillError, DemoError, TimeoutError])
def test_what_goes_wrong_fails_one_drill_only(error: type[Exception]) -> None:
    def act(_: World) -> None:
        raise error("no such thing")

    assert drills.attempt(drills.Drill("any", act), cast("World", None)) == "no such thing"


def test_requests_may_fail_up_to_the_drills_share() -> None:
    drill = drills.Drill("any", lambda _: None, may_fail=0.1)
    failures = Counter({"HTTP 500": 10})
    assert drills.traffic_problem(drill, Tally(100, failures)) is None
    problem = drills.traffic_problem(drill, Tally(99, failures))
    assert problem == "10 of 99 requests failed: HTTP 500 (10 times)"
    assert drills.traffic_problem(drill, Tally()) == "no request reached the endpoint"
