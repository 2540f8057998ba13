"""`python -m retraining.account PIPELINE.yaml`: whether an account has what a pipeline's runs need.

With the credentials and the region of boto3's default chain (AWS_PROFILE, AWS_REGION, ...). Reads only. The
exit status is 1 where something has to be fixed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from retraining.account.checks import check_account
from retraining.config.pipeline import PipelineFileError, load_pipeline

_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})
_MARKS = {"ok": "ok      ", "unknown": "unknown ", "fix": "FIX     "}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("pipeline", type=Path, help="the pipeline's file")
    options = parser.parse_args(arguments)
    try:
        pipeline = load_pipeline(options.pipeline)
    except (PipelineFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    session: Any = boto3.Session(region_name=os.environ.get("AWS_REGION"))  # boto3 reads AWS_DEFAULT_REGION
    region = session.region_name
    if region is None:
        print("No region: set AWS_REGION, or a region in the profile.", file=sys.stderr)
        return 2

    def client(service: str) -> Any:
        return session.client(service, config=_CONFIG)

    logging.getLogger("botocore").setLevel(logging.WARNING)  # Airflow shows its information
    counts = dict.fromkeys(_MARKS, 0)
    try:
        for line in check_account(pipeline, client, region, datetime.now(UTC).date()):
            counts[line.outcome] += 1
            print(f"{_MARKS[line.outcome]}{line.subject}: {line.text}", flush=True)
    except BotoCoreError as error:  # no credentials, for one
        print(f"AWS could not be asked: {error}", file=sys.stderr)
        return 2
    print(
        f"{pipeline.name} in {region}: {counts['ok']} ok, {counts['unknown']} could not be told, "
        f"{counts['fix']} to fix"
    )
    return 1 if counts["fix"] else 0


if __name__ == "__main__":
    sys.exit(main())
