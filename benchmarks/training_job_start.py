"""How fast training jobs start in the local SageMaker, and how long their data takes to arrive.

    .local/envs/sagemaker/bin/python benchmarks/training_job_start.py [--files 3060] [--jobs 3]

Starts a local SageMaker on an empty folder, puts `files` objects into S3 and runs the same job several times.
For each job it prints the seconds from CreateTrainingJob to the script's first line (by the script's clock),
and the seconds that the data channel took (SecondaryStatus Downloading): the first job downloads the data,
later ones link it. The script's `requirements.txt` names packages
that the environment has, as a usual job's does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError

REPOSITORY = Path(__file__).resolve().parents[1]
BUCKET = "benchmark-data"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0-cpu-py312"
SCRIPT = """import os, time
print("started", time.time())
print("files", sum(len(files) for *_, files in os.walk(os.environ["SM_CHANNEL_TRAIN"])))
"""
REQUIREMENTS = "numpy\npillow\nsmdebug\n"
FILE_BYTES = 40_000  # about the size of a photograph of 400 pixels
START_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=3060, help="objects in the channel (%(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=3, help="how many jobs to run, one after another (%(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root, local_sagemaker(Path(root)) as url:
        upload(url, options.files)
        results = [run_job(url, number) for number in range(options.jobs)]
    print(f"{options.files} files of {FILE_BYTES} bytes, {os.cpu_count()} cores")
    print("job  first log line [s]  channel [s]")
    for number, (start, channel) in enumerate(results):
        print(f"{number:3d}  {start:18.2f}  {channel:11.2f}")
    later = [start for start, _ in results[1:]] or [results[0][0]]
    print(
        json.dumps(
            {"cold_start_s": round(results[0][0], 2), "warm_start_s": round(statistics.median(later), 2)}
        )
    )


@contextmanager
def local_sagemaker(root: Path) -> Iterator[str]:
    """A runtime on `root` and a free port; its address."""
    command = [sys.executable, "-m", "local_sagemaker", "--root", str(root), "--port", "0"]
    with (root / "runtime.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        yield _address(root)
    finally:
        process.terminate()
        process.wait()


def _address(root: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            url: str = json.loads((root / "runtime.json").read_text())["url"]
            client(url, "s3").list_buckets()
        except (OSError, ValueError, BotoCoreError):
            time.sleep(0.1)
        else:
            return url
    raise TimeoutError(f"the local SageMaker did not come up: {(root / 'runtime.log').read_text()[-2000:]}")


def client(url: str, service: str) -> Any:
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106 - any is accepted
    )


def upload(url: str, files: int) -> None:
    s3 = client(url, "s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=source())
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda number: put_image(s3, number), range(files)):
            pass  # raises what an upload raised


def put_image(s3: Any, number: int) -> None:
    body = number.to_bytes(4, "big") * (FILE_BYTES // 4)
    s3.put_object(Bucket=BUCKET, Key=f"data/train/class-{number % 30:02d}/{number}.jpg", Body=body)


def source() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in {"train.py": SCRIPT, "requirements.txt": REQUIREMENTS}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def run_job(url: str, number: int) -> tuple[float, float]:
    """Seconds to the first log line of the script, and seconds of the data channel."""
    sagemaker, name = client(url, "sagemaker"), f"benchmark-{number}"
    created = time.time()
    sagemaker.create_training_job(**request(name))
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    job = sagemaker.describe_training_job(TrainingJobName=name)
    phases = {item["Status"]: item for item in job["SecondaryStatusTransitions"]}
    downloading = phases["Downloading"]["EndTime"] - phases["Downloading"]["StartTime"]
    return script_start(url, name) - created, downloading.total_seconds()


def request(name: str) -> dict[str, Any]:
    source_data = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/data/train"}
    return {
        "TrainingJobName": name,
        "RoleArn": "arn:aws:iam::123456789012:role/Benchmark",
        "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
        "HyperParameters": {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps(f"s3://{BUCKET}/code/sourcedir.tar.gz"),
        },
        "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": source_data}}],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def script_start(url: str, name: str) -> float:
    """When the script printed its first line, by its own clock."""
    logs, group = client(url, "logs"), "/aws/sagemaker/TrainingJobs"
    stream = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"][0]
    found = logs.filter_log_events(
        logGroupName=group, logStreamNames=[stream["logStreamName"]], filterPattern="started"
    )
    messages = [event["message"] for event in found["events"]]
    return float(next(text for text in messages if text.startswith("started")).split()[1])


if __name__ == "__main__":
    main()
