"""How fast the local SageMaker's S3 takes and lists objects, beside files written and synced to disk.

    .local/envs/airflow/bin/python -m benchmarks.s3 [OBJECTS]

Starts a local SageMaker of its own in a temporary folder. Puts come from 8 threads of one boto3 client, whose
own work shares the cores; so the figure for `files` has the same threads. Default: 100,000 objects of 3,000
bytes, which takes minutes.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import boto3
from botocore.config import Config

from tests.local_sagemaker.runtime_process import RuntimeProcess

THREADS = 8
BODY = os.urandom(3000)
LONGEST_LIST = 10.0  # seconds, of 100,000 objects
SLOWEST = 3.0  # times as long as files that are synced


def timed(work: Callable[[int], object], count: int) -> float:
    """Seconds that the threads need for `count` calls."""
    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, range(count)):
            pass
    return time.monotonic() - started


def listed(url: str) -> int:
    """The number of objects in all pages of ListObjectsV2."""
    found, token = 0, ""
    while True:
        query = urlencode({"list-type": 2, **({"continuation-token": token} if token else {})})
        with urlopen(f"{url}?{query}") as response:  # noqa: S310 - of this machine
            page = response.read().decode()
        found += page.count("<Contents>")
        following = re.search("<NextContinuationToken>(.*?)<", page)
        if following is None:
            return found
        token = following[1]


def main(count: int) -> bool:
    """Print the figures; whether they are good."""
    with tempfile.TemporaryDirectory() as folder:
        runtime = RuntimeProcess(Path(folder) / "root")
        runtime.start()
        try:
            s3 = boto3.client(
                "s3",
                endpoint_url=runtime.url,
                region_name="us-east-1",
                aws_access_key_id="any",
                aws_secret_access_key="any",  # noqa: S106
                config=Config(max_pool_connections=THREADS),
            )
            s3.create_bucket(Bucket="figures")

            def put(number: int) -> None:
                s3.put_object(Bucket="figures", Key=f"{number % 100:02}/{number:07}.jpg", Body=BODY)

            def write(number: int) -> None:
                with (Path(folder) / f"{number:07}.jpg").open("wb") as file:
                    file.write(BODY)
                    file.flush()
                    os.fsync(file.fileno())

            sample = min(count, 5000)
            files = timed(write, sample) / sample
            puts = timed(put, count) / count
            started = time.monotonic()
            found = listed(f"{runtime.url}/figures")
            listing = time.monotonic() - started
            started = time.monotonic()
            for _ in s3.get_paginator("list_objects_v2").paginate(Bucket="figures"):
                pass
            with_boto3 = time.monotonic() - started
        finally:
            runtime.stop()
    good = found == count and listing <= LONGEST_LIST and puts <= SLOWEST * files
    print(
        f"{count} objects: {1 / puts:.0f} puts a second, {puts / files:.1f} times as long as synced files "
        f"(limit {SLOWEST:.0f}); listed in {listing:.1f} s (limit {LONGEST_LIST:.0f}), "
        f"by boto3, which parses a date for every object, in {with_boto3:.1f} s: "
        f"{'good' if good else 'BAD'}"
    )
    return good


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
