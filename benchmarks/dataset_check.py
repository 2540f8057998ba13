"""How long the check of a dataset takes, the first time and a week later, on a local SageMaker's S3.

    .local/envs/airflow/bin/python benchmarks/dataset_check.py [--objects 5000] [--side 96]
    .local/envs/airflow/bin/python benchmarks/dataset_check.py --objects 100000 --side 16
    .local/envs/airflow/bin/python benchmarks/dataset_check.py --hashes 100000

Draws images of soft areas of colour, all different, puts them into three splits of two classes, and checks
them twice; the second check reads none of them. `--hashes` only times the search for near duplicates among
random hashes; 500 of them have a near duplicate within ten bits, all of which must be found.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
PREFIX = "benchmark"
SHARES = (("train", 0.8), ("valid", 0.1), ("test", 0.1))
CLASSES = ("001.Even", "002.Odd")
PLANTED = 500
BITS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--objects", type=int, default=5000, help="images (default %(default)s)")
    parser.add_argument("--side", type=int, default=96, help="of an image, in px (default %(default)s)")
    parser.add_argument("--hashes", type=int, default=0, help="only time the search among this many hashes")
    options = parser.parse_args()
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "plugins")]
    if options.hashes:
        search(options.hashes)
    else:
        check(options.objects, options.side)


def check(objects: int, side: int) -> None:
    """Time two checks of the same dataset."""
    from tests.dags.airflow_home import BUCKET, connected_runtime, use_temporary_home

    use_temporary_home()
    s3 = connected_runtime().client("s3")

    def put(number: int) -> int:
        content = image_file(number, side)
        s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name(number, objects)}", Body=content)
        return len(content)

    with ThreadPoolExecutor(8) as pool:
        size = sum(pool.map(put, range(objects)))
    print(f"{objects:,} images of {side} px, {size / 1e6:.1f} MB in all")
    first, result = timed(lambda: run_check("first", None))
    print(f"first check   {first:7.2f} s  {objects / first:8,.0f} images/s")
    second, _ = timed(lambda: run_check("second", {"run": "first", "dataset": result}))
    print(f"second check  {second:7.2f} s  {objects / second:8,.0f} images/s")
    print(f"the second takes {second / first:.1%} of the first")


def run_check(run: str, last: Any) -> Any:
    """The check as the DAG's task runs it."""
    from retraining.aws.clients import Aws
    from retraining.config.params import RunSettings, form
    from retraining.config.pipeline import load_pipeline
    from retraining.dataset.check import check_dataset
    from retraining.runs.context import RunLocation

    from tests.dags.airflow_home import BUCKET

    pipeline = load_pipeline(REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml")
    values = {field: param.resolve() for field, param in form(pipeline).items()}
    settings = RunSettings.from_params({**values, "dataset_prefix": PREFIX})
    return check_dataset(pipeline, settings, Aws(), RunLocation(BUCKET, pipeline.name, run), last)


def name(number: int, objects: int) -> str:
    """Path of an image: the first 80 % are for training."""
    place, split = number / objects, SHARES[-1][0]
    for candidate, share in SHARES:
        if place < share:
            split = candidate
            break
        place -= share
    return f"{split}/{CLASSES[number % 2]}/{number:07d}.jpg"


def image_file(number: int, side: int) -> bytes:
    areas = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(areas).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def search(number: int) -> None:
    """Time the search among random hashes, and count the planted near duplicates that it finds."""
    from retraining.dataset.duplicates import candidate_pairs

    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << BITS, number, dtype=np.uint64)
    hashes = np.concatenate([hashes, [altered(rng, int(one)) for one in hashes[:PLANTED]]]).astype(np.uint64)
    seconds, pairs = timed(lambda: set(pairs_of(candidate_pairs(hashes))))
    planted = sum((place, number + place) in pairs for place in range(min(PLANTED, number)))
    print(f"{number:,} hashes: {seconds:.2f} s, {len(pairs)} pairs, {planted} of {PLANTED} planted ones")


def altered(rng: np.random.Generator, value: int) -> np.uint64:
    """The hash with up to ten bits flipped."""
    bits = rng.choice(BITS, rng.integers(0, 11), replace=False)
    return np.uint64(value ^ sum(1 << int(bit) for bit in bits))


def pairs_of(pieces: Iterator[tuple[Any, Any]]) -> Iterator[tuple[int, int]]:
    for first, second in pieces:
        for one, two in zip(first.tolist(), second.tolist(), strict=True):
            yield min(one, two), max(one, two)


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = what()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
