"""Processing jobs through Airflow's operator and AWS's SDK."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.local_sagemaker.processing_support import PROCESSING, ProcessingRunner
from tests.local_sagemaker.runtime_process import REGION, RuntimeProcess, environment_python, run_sdk

WRITES = """
import json, os, pathlib
pathlib.Path(os.environ["OUT"], "metrics.json").write_text(json.dumps({"accuracy": 0.9}))
"""
OPERATE = """
import json, sys
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerProcessingOperator
operator = SageMakerProcessingOperator(
    task_id="evaluate", config=json.load(sys.stdin), check_interval=1, print_log=False, deferrable=False,
    action_if_job_exists="fail",
    output_files_to_xcom=[{"output_name": "out", "file_name": "metrics.json", "result_name": "metrics"}],
)
print(json.dumps(operator.execute({}), default=str))
"""


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> ProcessingRunner:
    return ProcessingRunner(runtime, bucket, role_arn)


def operate(jobs: ProcessingRunner, name: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Airflow's operator in a process with an Airflow home of its own."""
    request = jobs.request(
        name,
        WRITES,
        Environment={"OUT": f"{PROCESSING}/out"},
        ProcessingOutputConfig=jobs.outputs(name),
    )
    extra = {"region_name": REGION, "endpoint_url": jobs.runtime.url}
    connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
    return subprocess.run(
        [str(environment_python("airflow")), "-c", OPERATE],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
            "AWS_ENDPOINT_URL": jobs.runtime.url,  # for outputs the connection's is passed over
        },
    )


def test_airflow_s_operator_runs_a_job_and_reads_its_output(jobs: ProcessingRunner, tmp_path: Path) -> None:
    run = operate(jobs, "operated", tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["Processing"]["ProcessingJobStatus"] == "Completed"
    assert result["OutputFiles"] == {"metrics": {"accuracy": 0.9}}
    again = operate(jobs, "operated", tmp_path)
    assert again.returncode != 0
    assert "already exists" in again.stderr


FOLLOW = """
import boto3
from sagemaker.core.resources import ProcessingJob
from sagemaker.core.utils.utils import SageMakerClient
SageMakerClient(session=boto3.Session(region_name="us-east-1"), region_name="us-east-1")
job = ProcessingJob.get("resource", region="us-east-1")
job.wait(poll=1, timeout=100)
assert job.processing_job_status == "Completed"
assert "resource" in [item.processing_job_name for item in ProcessingJob.get_all(name_contains="resource")]
job.delete()
"""


def test_the_sdk_s_resource_follows_a_job(jobs: ProcessingRunner) -> None:
    jobs.create("resource", "print('hello')")
    run_sdk(jobs.runtime, FOLLOW)
