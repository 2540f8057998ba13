"""The model server of the local images for inference: the program that `serve` starts in AWS's containers.

Implements the container contract (`GET /ping`, `POST /invocations`) for two of them:

- `torchserve` (AWS's PyTorch 2.6): AWS's own inference toolkit around a user's `inference.py` (`model_fn`,
  `input_fn`, `predict_fn`, `output_fn` or `transform_fn`): the Transformer of `sagemaker_inference` with the
  PyTorch handler of `sagemaker_pytorch_serving_container`. As with TorchServe, `/ping` is healthy from the
  start, a model that does not load is loaded again for ever, and requests wait for it.
- `ray-serve`: the application that the archive's `config.yaml` names (ray_serve.py). As with Ray Serve,
  `/ping` is healthy once the application is there, and the server ends where it cannot be made.

Connections are served by threads, so that `/ping` responds while a prediction runs. With the toolkit only the
main thread calls the model, one request at a time, as a worker of TorchServe does; an application has five
requests at a time in its event loop, as in Ray Serve. Others wait in a queue of 100, TorchServe's
`job_queue_size`; further ones get status 503.

Runs in the image's environment and imports nothing of the local runtime:

    python -P serve.py --server ray-serve --port 0 --port-file FILE --failure-file FILE

Reads `SAGEMAKER_BASE_DIR` (the model lies in `<base>/model`), `SAGEMAKER_PROGRAM` (the toolkit) and
`SAGEMAKER_MODEL_SERVER_TIMEOUT` from the process's environment.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

QUEUE_LENGTH = 100
SHUTDOWN_POLL_SECONDS = 0.1
SIGNAL_POLL_SECONDS = 0.5
EXIT_STUCK = 75  # EX_TEMPFAIL: a prediction exceeded the timeout and cannot be interrupted
MAX_LOAD_PAUSE_SECONDS = 8.0
FAILURE_CHARACTERS = 900  # leaves room in a FailureReason of 1,024

logger = logging.getLogger("serve")


@dataclass(frozen=True)
class Response:
    """An HTTP response of the container."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def error(cls, status: HTTPStatus, message: str) -> Response:
        body = json.dumps({"code": int(status), "type": status.phrase, "message": message}).encode()
        return cls(int(status), body, {"Content-Type": "application/json"})


@dataclass(frozen=True)
class RequestProcessor:
    """The part of TorchServe's RequestProcessor that the toolkit uses."""

    headers: Mapping[str, str]

    def get_request_properties(self) -> Mapping[str, str]:
        return self.headers


@dataclass
class Context:
    """What TorchServe passes to handlers that take a `context`: one object, reset for each request."""

    model_dir: str
    model_name: str = "model"
    manifest: dict[str, Any] = field(default_factory=dict)
    system_properties: dict[str, Any] = field(default_factory=dict)
    request_processor: list[RequestProcessor] = field(default_factory=list)
    status: int = 200
    response_headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.system_properties = {"model_dir": self.model_dir, "gpu_id": None, "batch_size": 1}

    def begin(self, headers: Mapping[str, str]) -> None:
        self.request_processor = [RequestProcessor(headers)]
        self.status = 200
        self.response_headers = {}

    def get_request_header(self, idx: int, key: str, default: str | None = None) -> str | None:
        headers = self.request_processor[idx].headers
        return next((value for name, value in headers.items() if name.lower() == key.lower()), default)

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:
        return self.request_processor[idx].headers

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:  # noqa: ARG002
        self.status = int(code)

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "Content-Type", value)

    def set_response_header(self, idx: int, key: str, value: str) -> None:  # noqa: ARG002
        self.response_headers[key] = value


@dataclass
class Job:
    """One invocation in the queue. `started` is in monotonic seconds, 0 while it waits."""

    headers: Mapping[str, str]
    body: bytes
    started: float = 0.0
    response: Response | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Model(Protocol):
    """A model behind its server, which takes `concurrency` requests at a time."""

    concurrency: int

    def load(self) -> None:
        """Get ready for requests. Raises what the user's code raises."""

    def predict(self, headers: Mapping[str, str], body: bytes) -> Response:
        """The response to one request."""


class ToolkitModel:
    """A user's `inference.py` in AWS's toolkit."""

    concurrency = 1

    def __init__(self, model_dir: Path) -> None:
        self._context = Context(str(model_dir))
        self._transform: Any = None

    def load(self) -> None:
        transformer = _transformer()
        transformer.validate_and_initialize(model_dir=self._context.model_dir, context=self._context)
        self._transform = transformer.transform

    def predict(self, headers: Mapping[str, str], body: bytes) -> Response:
        self._context.begin(headers)
        result = self._transform([{"body": body}], self._context)[0]
        try:
            content = _encoded(result)
        except TypeError as error:
            logger.exception("output_fn returned a value that cannot be sent")
            return Response.error(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"output_fn returned a value that cannot be sent: {error}"
            )
        return Response(
            self._context.status, content, {"Content-Type": "text/plain", **self._context.response_headers}
        )


class RayServeModel:
    """An application of Ray Serve, without Ray."""

    concurrency = 5  # Ray Serve's default of max_ongoing_requests

    def __init__(self, model_dir: Path) -> None:
        self._model_dir = model_dir
        self._respond: Any = None

    def load(self) -> None:
        sys.path.append(str(Path(__file__).parents[2]))
        from local_sagemaker.hosting import ray_serve  # noqa: PLC0415 - found by the line above

        self._respond = ray_serve.load(self._model_dir)

    def predict(self, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            return Response(*self._respond(headers, body))
        except Exception:
            logger.exception("The application raised an exception")
            return Response(500, b"Internal Server Error", {"Content-Type": "text/plain"})


class ModelServer:
    """The queue between the connection threads and the model.

    `eager` servers are healthy, and take requests, before the model is loaded.
    """

    def __init__(self, model: Model, timeout: float, *, eager: bool) -> None:
        self.ready = eager
        self.stuck = False
        self._eager = eager
        self._model = model
        self._timeout = timeout
        # Reentrant, because `stop` runs in a signal handler.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._places = threading.BoundedSemaphore(QUEUE_LENGTH)
        self._stopped = threading.Event()

    def load(self) -> None:
        """Load the model. An eager server tries for ever; another one raises what the user's code raises."""
        pause = 1.0
        while not self._stopped.is_set():
            try:
                self._model.load()
            except Exception:
                if not self._eager:
                    raise
                logger.exception("The model does not load; the next attempt is in %g s", pause)
                self._stopped.wait(pause)
                pause = min(2 * pause, MAX_LOAD_PAUSE_SECONDS)
            else:
                self.ready = True
                return

    def run(self) -> None:
        """Process jobs until `stop`, including those queued before it."""
        if self._model.concurrency == 1:
            while (job := self._next()) is not None:
                self._process(job)
            return
        with ThreadPoolExecutor(self._model.concurrency, thread_name_prefix="request") as pool:
            while (job := self._next()) is not None:
                pool.submit(self._process, job)

    def _process(self, job: Job) -> None:
        job.started = time.monotonic()
        job.response = self._model.predict(job.headers, job.body)
        job.done.set()

    def _next(self) -> Job | None:
        """The next job, or None to stop. Waits in turns: a signal does not always wake a waiting thread."""
        while True:
            try:
                return self._jobs.get(timeout=SIGNAL_POLL_SECONDS)
            except queue.Empty:
                continue

    def stop(self) -> None:
        self.ready = False
        self._stopped.set()
        self._jobs.put(None)

    def respond(self, headers: Mapping[str, str], body: bytes) -> Response:
        """Wait for the model's response to one request; called by a connection's thread."""
        if not self.ready:
            return Response.error(HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded")
        if not self._places.acquire(blocking=False):
            return Response.error(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{QUEUE_LENGTH} requests are already waiting"
            )
        try:
            return self._wait(Job(headers, body))
        finally:
            self._places.release()

    def _wait(self, job: Job) -> Response:
        self._jobs.put(job)
        while not job.done.wait(min(1.0, self._timeout)):
            if job.started and time.monotonic() - job.started > self._timeout:
                self.ready, self.stuck = False, True
                message = f"The prediction took longer than {self._timeout:g} s"
                return Response.error(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        return job.response or Response.error(HTTPStatus.INTERNAL_SERVER_ERROR, "The prediction was lost")


def _transformer() -> Any:
    """AWS's toolkit around the user's module. Imports torch, so call it once pings are served."""
    from sagemaker_inference.transformer import Transformer  # noqa: PLC0415
    from sagemaker_pytorch_serving_container import default_pytorch_inference_handler as pytorch  # noqa: PLC0415

    return Transformer(default_inference_handler=pytorch.DefaultPytorchInferenceHandler())


def _encoded(result: Any) -> bytes:
    """A handler's result as TorchServe sends it: bytes unchanged, text as UTF-8, anything else as JSON."""
    if isinstance(result, bytes | bytearray):
        return bytes(result)
    if isinstance(result, str):
        return result.encode()
    return json.dumps(result).encode()


class Connection(BaseHTTPRequestHandler):
    """One keep-alive connection. A response is sent in one write, without Nagle's delay."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        if self.path != "/ping":
            self._send(Response.error(HTTPStatus.NOT_FOUND, "GET supports only /ping"))
        elif self.server.model.ready:
            self._send(Response(200, b'{"status": "Healthy"}', {"Content-Type": "application/json"}))
        else:
            self._send(Response.error(HTTPStatus.SERVICE_UNAVAILABLE, "The model is not loaded"))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,18}", length):
            self.close_connection = True
            self._send(Response.error(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing"))
            return
        body = self.rfile.read(int(length))
        if self.path != "/invocations":
            self._send(Response.error(HTTPStatus.NOT_FOUND, "POST supports only /invocations"))
            return
        response = self.server.model.respond(dict(self.headers.items()), body)
        self._send(response)
        if self.server.model.stuck:
            logger.error("A prediction cannot be interrupted: ending the server, so that it is restarted")
            os._exit(EXIT_STUCK)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value.replace("\r", " ").replace("\n", " "))
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is http.server's
        """Log nothing: the platform counts pings and invocations, and the log is the model's."""


class Server(ThreadingHTTPServer):
    """A listening socket with a deep backlog: a burst of connections must not be reset."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, model: ModelServer) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.model = model


def record_failure(path: Path) -> None:
    """Write the text of an exception that ends the process to `path`, for the endpoint's FailureReason."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        path.write_text("".join(traceback.format_exception_only(kind, error)).strip()[:FAILURE_CHARACTERS])
        sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def publish(path: Path, text: str) -> None:
    """Write a file that no reader sees incomplete."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a model as AWS's images for inference do.")
    parser.add_argument("--server", choices=("torchserve", "ray-serve"), required=True)
    parser.add_argument("--port", type=int, default=int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")))
    parser.add_argument("--port-file", type=Path, required=True, help="file for the port, once it is bound")
    parser.add_argument(
        "--failure-file", type=Path, required=True, help="file for the text of a fatal exception"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    record_failure(arguments.failure_file)
    model_dir = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")) / "model"
    sys.path.insert(0, str(model_dir / "code"))
    eager = arguments.server == "torchserve"
    model = ModelServer(
        ToolkitModel(model_dir) if eager else RayServeModel(model_dir),
        float(os.environ.get("SAGEMAKER_MODEL_SERVER_TIMEOUT", "60")),
        eager=eager,
    )
    server = Server(arguments.port, model)
    threading.Thread(
        target=server.serve_forever, args=(SHUTDOWN_POLL_SECONDS,), name="http", daemon=True
    ).start()
    publish(arguments.port_file, str(server.server_port))
    signal.signal(signal.SIGTERM, lambda *_: model.stop())
    started = time.monotonic()
    model.load()
    logger.info("Model loaded in %.1f s, serving on port %d", time.monotonic() - started, server.server_port)
    model.run()
    server.shutdown()


if __name__ == "__main__":
    main()
