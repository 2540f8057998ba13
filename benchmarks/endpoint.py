"""How fast an endpoint gets into service, and what the runtime costs an invocation.

    .local/envs/sagemaker/bin/python -m benchmarks.endpoint [--requests 1000] [--clients 4]

Starts a local SageMaker on an empty folder and hosts a model that responds at once, so that only overhead is
measured. It prints the seconds from CreateEndpoint and UpdateEndpoint to InService, and
requests a second and milliseconds a request, to the model server directly and through boto3 and the runtime.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import urllib3
from botocore.config import Config

from benchmarks.training_job_start import BUCKET, client, local_sagemaker

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
INFERENCE = """import torch

def model_fn(model_dir):
    return torch.nn.Identity()

def input_fn(body, content_type):
    return body

def predict_fn(data, model):
    return b"prediction"

def output_fn(prediction, accept):
    return prediction
"""
BODY = b"x" * 40_000  # about the size of a photograph of 400 pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1000, help="for each measurement (%(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="parallel clients (%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, local_sagemaker(Path(root)) as url:
        host(url)
        seconds = {
            "create_s": into_service(url, "create_endpoint", "one"),
            "update_s": into_service(url, "update_endpoint", "one"),
            "update_to_two_instances_s": into_service(url, "update_endpoint", "two"),
        }
        into_service(url, "update_endpoint", "one")
        direct = server_call(Path(root), options.clients)
        through = runtime_call(url, options.clients)
        rows = {
            f"{name}, {clients} clients": measure(call, options.requests, clients)
            for clients in (1, options.clients)
            for name, call in (("model server", direct), ("boto3 and runtime", through))
        }
    print(f"bodies of {len(BODY)} bytes, {os.cpu_count()} cores")
    for name, (rate, median, p99) in rows.items():
        print(f"{name:30s} {rate:7.0f} requests/s   median {median:6.2f} ms   p99 {p99:6.2f} ms")
    print(json.dumps({name: round(value, 2) for name, value in seconds.items()}))


def host(url: str) -> None:
    """A model, and a configuration with one instance and one with two."""
    s3, sagemaker = client(url, "s3"), client(url, "sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=archive())
    sagemaker.create_model(
        ModelName="model",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/Benchmark",
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
    )
    for count, name in enumerate(("one", "two"), 1):
        variant = {"VariantName": "AllTraffic", "ModelName": "model", "InstanceType": "ml.m5.large"}
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{**variant, "InitialInstanceCount": count}]
        )


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("code/inference.py")
        member.size = len(INFERENCE)
        tar.addfile(member, io.BytesIO(INFERENCE.encode()))
    return buffer.getvalue()


def into_service(url: str, operation: str, config: str) -> float:
    """Seconds until the endpoint is in service."""
    sagemaker = client(url, "sagemaker")
    started = time.monotonic()
    getattr(sagemaker, operation)(EndpointName="endpoint", EndpointConfigName=config)
    while (shown := sagemaker.describe_endpoint(EndpointName="endpoint"))["EndpointStatus"] != "InService":
        if shown["EndpointStatus"] == "Failed":
            raise RuntimeError(shown["FailureReason"])
        time.sleep(0.05)
    return time.monotonic() - started


def server_call(root: Path, clients: int) -> Callable[[], object]:
    """A call of the one instance's model server, past the runtime."""
    [port] = root.glob("endpoint/endpoint/fleet-*/AllTraffic/i-*/1/port")
    pool = urllib3.HTTPConnectionPool("127.0.0.1", int(port.read_text()), maxsize=clients)
    return lambda: pool.request("POST", "/invocations", body=BODY)


def runtime_call(url: str, clients: int) -> Callable[[], object]:
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - any is accepted
        config=Config(max_pool_connections=clients),
    )

    def call() -> bytes:
        prediction: bytes = runtime.invoke_endpoint(EndpointName="endpoint", Body=BODY)["Body"].read()
        return prediction

    return call


def measure(call: Callable[[], object], requests: int, clients: int) -> tuple[float, float, float]:
    """Requests a second, and median and 99th percentile of the milliseconds a request."""

    def timed(_: int) -> float:
        started = time.perf_counter()
        call()
        return (time.perf_counter() - started) * 1000

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = list(pool.map(timed, range(requests)))
    elapsed = time.perf_counter() - started
    return requests / elapsed, statistics.median(times), statistics.quantiles(times, n=100)[-1]


if __name__ == "__main__":
    main()
