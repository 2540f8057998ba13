"""A small real PyTorch model for endpoints, and the calls that put it into service."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4"
UNKNOWN_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/nobody-knows-this:1"
READY_SECONDS = 200.0
POLL_SECONDS = 0.2
WAITING = {"Delay": POLL_SECONDS, "MaxAttempts": int(READY_SECONDS / POLL_SECONDS)}

TORCHSERVE_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"

CONFIG = """
applications: [{name: model, route_prefix: /, import_path: "deployment:app"}]
"""

DEPLOYMENT = """
import sys
from pathlib import Path

from ray import serve
from starlette.responses import JSONResponse, PlainTextResponse

sys.path.append(str(Path(__file__).parent / "code"))
from model import input_fn, model_fn, predict_fn, Refused

ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


@serve.deployment(num_replicas=1)
class Model:
    def __init__(self, folder):
        self.model = model_fn(folder)

    async def __call__(self, request):
        try:
            data = input_fn(await request.body(), request.headers["content-type"])
        except Refused as error:
            return PlainTextResponse(str(error), 400)
        response = {**predict_fn(data, self.model), "accept": request.headers.get("accept")}
        seen = request.headers.get(ATTRIBUTES)
        return JSONResponse(response, headers={ATTRIBUTES: seen + ";seen"} if seen else {})


app = Model.bind(str(Path(__file__).parent))
"""

MODEL = """
import json
import os
import time
from pathlib import Path

import torch


class Refused(Exception):
    pass


def model_fn(model_dir):
    settings = json.loads((Path(model_dir) / "settings.json").read_text())
    if "load_error" in settings:
        raise RuntimeError(settings["load_error"])
    if "load_once" in settings:
        Path(settings["load_once"]).touch(exist_ok=False)
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    print(f"loaded version {settings['version']}")
    return layer, settings


def input_fn(body, content_type):
    if content_type != "application/json":
        raise Refused(f"cannot read {content_type}")
    return json.loads(body)


def predict_fn(request, model):
    layer, settings = model
    time.sleep(request.get("sleep", settings.get("sleep", 0)))
    if request.get("error") or settings.get("error"):
        raise RuntimeError(request.get("error") or settings["error"])
    crash_once = Path(request["crash_once"]) if "crash_once" in request else None
    if request.get("crash") or (crash_once and not crash_once.exists()):
        if crash_once:
            crash_once.touch()
        os._exit(3)
    with torch.no_grad():
        value = layer(torch.tensor([float(request.get("value", 1))])).item()
    facts = {"pid": os.getpid(), "threads": torch.get_num_threads(), "variable": os.environ.get("VARIABLE")}
    return {"value": value, "version": settings["version"], **facts}
"""

INFERENCE = """
import json

from model import Refused, model_fn, predict_fn
from model import input_fn as _input_fn
from sagemaker_inference.errors import GenericInferenceToolkitError


def input_fn(body, content_type):
    try:
        return _input_fn(body, content_type)
    except Refused as error:
        raise GenericInferenceToolkitError(400, str(error))


def output_fn(prediction, accept, context):
    attributes = context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")
    if attributes:
        context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", attributes + ";seen")
    return json.dumps({**prediction, "accept": accept})
"""


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def archive(files: dict[str, str]) -> bytes:
    """A model.tar.gz with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


class HostingClient:
    """boto3 calls to a runtime, with generated names by default."""

    def __init__(self, runtime: RuntimeProcess, bucket: str, role_arn: str) -> None:
        self.runtime = runtime
        self.sagemaker = runtime.client("sagemaker")
        self.inference = runtime.client("sagemaker-runtime", max_pool_connections=64)
        self.s3 = runtime.client("s3")
        self.bucket = bucket
        self.role_arn = role_arn

    def upload(self, version: str, **settings: Any) -> str:
        """Put a model's archive into S3. `settings`: load_error, load_once, error, sleep."""
        key = f"models/{unique(version)}/model.tar.gz"
        files = {
            "settings.json": json.dumps({"version": version, **settings}),
            "config.yaml": CONFIG,
            "deployment.py": DEPLOYMENT,
            "code/model.py": MODEL,
            "code/inference.py": INFERENCE,
        }
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=archive(files))
        return f"s3://{self.bucket}/{key}"

    def model(
        self, version: str, environment: dict[str, str] | None = None, image: str = IMAGE, **settings: Any
    ) -> str:
        name = unique(f"model-{version}")
        container = {"Image": image, "ModelDataUrl": self.upload(version, **settings)}
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=self.role_arn,
            PrimaryContainer={**container, "Environment": environment or {}},
        )
        return name

    def config(self, model: str, instances: int = 1, **members: Any) -> str:
        name = unique("config")
        variant = variant_of(model, instances=instances)
        self.sagemaker.create_endpoint_config(
            **{"EndpointConfigName": name, "ProductionVariants": [variant], **members}
        )
        return name

    def endpoint(self, config: str, name: str | None = None) -> str:
        """Create an endpoint and wait until it is in service, with boto3's own waiter."""
        name = name or unique("endpoint")
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        self.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=WAITING)
        return name

    def settled(self, endpoint: str) -> dict[str, Any]:
        """DescribeEndpoint's response once no transition is in progress."""

        def poll() -> dict[str, Any] | None:
            response = self.sagemaker.describe_endpoint(EndpointName=endpoint)
            return response if response["EndpointStatus"] in {"InService", "Failed", "OutOfService"} else None

        return wait_for(poll, READY_SECONDS, f"{endpoint} to settle", every=POLL_SECONDS)

    def invoke(self, endpoint: str, request: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        response = self.inference.invoke_endpoint(
            EndpointName=endpoint,
            Body=json.dumps(request or {}),
            **{"ContentType": "application/json", **members},
        )
        result: dict[str, Any] = json.loads(response["Body"].read())
        return result | {"response": response}

    def delete(self, endpoint: str) -> None:
        self.sagemaker.delete_endpoint(EndpointName=endpoint)
        self.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=endpoint, WaiterConfig=WAITING)


def variant_of(
    model: str, name: str = "AllTraffic", instances: int = 1, weight: float = 1.0
) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InitialInstanceCount": instances,
        "InstanceType": "ml.m5.large",
        "InitialVariantWeight": weight,
    }


@dataclass
class Traffic:
    """The clients' results: responses by model version, and all failures."""

    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.versions.total() + len(self.failures)


@contextmanager
def traffic(client: HostingClient, endpoint: str, clients: int = 4) -> Iterator[Traffic]:
    """Parallel clients that send requests without a pause for as long as the block runs.

    The endpoint's models should sleep a little: a client that waits leaves the cores to servers that start.
    """
    seen, stop, lock = Traffic(), threading.Event(), threading.Lock()

    def send() -> None:
        while not stop.is_set():
            try:
                version = client.invoke(endpoint)["version"]
            except (ClientError, BotoCoreError) as error:
                with lock:
                    seen.failures.append(str(error))
            else:
                with lock:
                    seen.versions[version] += 1

    threads = [threading.Thread(target=send, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
