"""Airflow for tests: its own home in a temporary folder, with a local SageMaker behind its connection.

Import this before Airflow: Airflow reads its settings when it is imported.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.local_sagemaker.runtime_process import RuntimeProcess

REPOSITORY = Path(__file__).parents[2]
DAGS = REPOSITORY / "dags"
PLUGINS = REPOSITORY / "plugins"
BUCKET = "sagemaker-us-east-1-123456789012"
ROLE_ARN = "arn:aws:iam::123456789012:role/SageMakerRetrainingRole"


def settings(home: Path) -> dict[str, str]:
    """The environment variables that point Airflow to a home."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@cache
def use_temporary_home() -> Path:
    """A home of this test process, which is gone when the process ends."""
    home = Path(tempfile.mkdtemp(prefix="airflow-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ.update(settings(home))
    return home


def keep_lineage() -> Path:
    """Have OpenLineage write its events to a file of the home, a line each; call it before Airflow runs."""
    file = use_temporary_home() / "lineage.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    os.environ["AIRFLOW__OPENLINEAGE__TRANSPORT"] = json.dumps(transport)
    return file


def migrate() -> None:
    """Create the metadata database of the home. Raises RuntimeError with Airflow's own words."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"airflow db migrate: {done.stdout[-2000:]} {done.stderr[-2000:]}")


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)


@cache
def connected_runtime() -> RuntimeProcess:
    """A local SageMaker behind the connection `aws_default`, with the default bucket and the role.

    One for the whole test process, because the connection is an environment variable.
    """
    folder = Path(tempfile.mkdtemp(prefix="sagemaker-"))
    process = RuntimeProcess(folder).start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(process.close)
    process.client("s3").create_bucket(Bucket=BUCKET)
    process.client("iam").create_role(RoleName=ROLE_ARN.rpartition("/")[2], AssumeRolePolicyDocument=TRUST)
    connection = {
        "conn_type": "aws",
        "login": "test",
        "password": "test",
        "extra": {"region_name": "us-east-1", "endpoint_url": process.url},
    }
    os.environ["AIRFLOW_CONN_AWS_DEFAULT"] = json.dumps(connection)
    return process
