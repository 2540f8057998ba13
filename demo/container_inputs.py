"""First start in containers: the bucket, the role and the sample dataset in the local SageMaker's S3."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from demo.aws import Aws
from demo.pipelines import SAMPLE
from demo.sample_dataset import Plan, draw_dataset
from demo.upload import create_bucket_and_role, put_dataset, stored


def main(url: str, credentials: str) -> int:
    """Leave a dataset that is there already as it is: it may be the user's own."""
    aws = Aws(url, Path(credentials))
    create_bucket_and_role(aws)
    if stored(aws, f"{SAMPLE.dataset}/"):
        print(f"There is a dataset in s3://{aws.bucket}/{SAMPLE.dataset}/")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(Path(folder) / "sample", Plan())
        synced = put_dataset(aws, Path(folder) / "sample", SAMPLE.dataset, lambda _done, _total: None)
    print(f"{synced.uploaded} images put into s3://{aws.bucket}/{SAMPLE.dataset}/")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
