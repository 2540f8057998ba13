"""64 clients through an update and a rollback: how many requests fail, and how long they take.

    .local/envs/sagemaker/bin/python -m benchmarks.endpoint_load [--clients 64] [--seconds 60]

Starts a local SageMaker on an empty folder and hosts a model that responds at once. While all clients send
requests without a pause, the endpoint is updated to another model, then to a third, whose deployment an alarm
stops half way, so that its traffic goes back. The exit status is 1 if a request failed, if the
99th percentile is above five times the median, or if the endpoint does not end with the second model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.endpoint import BODY, IMAGE, archive, into_service
from benchmarks.training_job_start import BUCKET, client, local_sagemaker

ENDPOINT = "endpoint"
ALARM = "stop"
LIMIT = 5.0  # the 99th percentile in medians
BAKE_SECONDS = 5
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1


@dataclass
class Seen:
    """Milliseconds of the requests that succeeded, and why others failed."""

    times: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)


def send(url: str, seen: Seen) -> None:
    """One client: requests without a pause, none of them a second time."""
    runtime = boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - any is accepted
        config=Config(retries={"total_max_attempts": 1}),
    )
    while not seen.ended.is_set():
        started, reason = time.perf_counter(), None
        try:
            runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=BODY)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            reason = str(error)
        with seen.lock:
            seen.times.append((time.perf_counter() - started) * 1000)
            seen.failures.update([reason] if reason else [])


def host(url: str) -> None:
    """Three models, each with a configuration of two instances."""
    s3, sagemaker = client(url, "s3"), client(url, "sagemaker")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="model.tar.gz", Body=archive())
    for name in ("first", "second", "third"):
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn="arn:aws:iam::123456789012:role/Benchmark",
            PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/model.tar.gz"},
        )
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large"}
        sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{**variant, "InitialInstanceCount": 2}]
        )


def put_alarm(url: str, threshold: float) -> None:
    """An alarm on the number of invocations of a minute, which fires if its threshold is low."""
    client(url, "cloudwatch").put_metric_alarm(
        AlarmName=ALARM,
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=[
            {"Name": "EndpointName", "Value": ENDPOINT},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=threshold,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )


def update(url: str, config: str, bake_seconds: int) -> None:
    size = {"Type": "CAPACITY_PERCENT", "Value": 50}
    routing = {"Type": "CANARY", "WaitIntervalInSeconds": bake_seconds, "CanarySize": size}
    client(url, "sagemaker").update_endpoint(
        EndpointName=ENDPOINT,
        EndpointConfigName=config,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": ALARM}]},
        },
    )


def describe(url: str) -> dict[str, Any]:
    shown: dict[str, Any] = client(url, "sagemaker").describe_endpoint(EndpointName=ENDPOINT)
    return shown


def settled(url: str) -> dict[str, Any]:
    """The endpoint once it is not updating any more. Raises TimeoutError."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (shown := describe(url))["EndpointStatus"] in {"Updating", "RollingBack"}:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the endpoint is {shown['EndpointStatus']} after {WAIT_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return shown


def bakes(url: str) -> bool:
    """Whether the new fleet of an update has traffic."""
    pending = describe(url).get("PendingDeploymentSummary", {})
    statuses = [
        status["Status"] for v in pending.get("ProductionVariants", ()) for status in v["VariantStatus"]
    ]
    return "Baking" in statuses


def update_and_roll_back(url: str) -> dict[str, Any]:
    """The endpoint after both. Raises TimeoutError, RuntimeError where the rollback did not happen."""
    put_alarm(url, threshold=1e12)
    update(url, "second", BAKE_SECONDS)
    if settled(url)["EndpointConfigName"] != "second":
        raise RuntimeError(f"the update did not succeed: {describe(url)}")
    update(url, "third", 60)
    deadline = time.monotonic() + WAIT_SECONDS
    while not bakes(url):
        if time.monotonic() > deadline:
            raise TimeoutError("the third model got no traffic")
        time.sleep(POLL_SECONDS)
    time.sleep(BAKE_SECONDS)
    put_alarm(url, threshold=0)
    after = settled(url)
    if after["EndpointConfigName"] != "second" or ALARM not in after.get("FailureReason", ""):
        raise RuntimeError(f"the third model was not rolled back: {after}")
    return after


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=64, help="at the same time (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="at least (%(default)s)")
    options = parser.parse_args()
    seen = Seen()
    with tempfile.TemporaryDirectory() as root, local_sagemaker(Path(root)) as url:
        host(url)
        into_service(url, "create_endpoint", "first")
        threads = [threading.Thread(target=send, args=(url, seen)) for _ in range(options.clients)]
        started = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            update_and_roll_back(url)
            seen.ended.wait(max(0.0, options.seconds - (time.monotonic() - started)))
        finally:
            seen.ended.set()
            for thread in threads:
                thread.join()
        elapsed = time.monotonic() - started
    median, p99 = statistics.median(seen.times), statistics.quantiles(seen.times, n=100)[-1]
    failed = seen.failures.total()
    for reason, count in seen.failures.most_common(5):
        sys.stdout.write(f"{count} times: {reason}\n")
    good = failed == 0 and p99 <= LIMIT * median
    sys.stdout.write(
        f"{options.clients} clients, {elapsed:.0f} s, an update and a rollback: {len(seen.times)} requests, "
        f"{failed} failed, median {median:.0f} ms, p99 {p99:.0f} ms ({p99 / median:.1f} medians, "
        f"limit {LIMIT:.0f}): {'good' if good else 'NOT good'}\n"
    )
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
