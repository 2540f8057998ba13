"""The AWS operations of Airflow's processes: recorded, and held against its policy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from demo import services
from demo.recorded_calls import NOT_CAUSED, compare


def test_a_process_with_the_recorder_leaves_its_operations(tmp_path: Path) -> None:
    calls = tmp_path / "calls.txt"
    program = (
        "import boto3, contextlib\n"
        "client = boto3.client('sagemaker', region_name='us-east-1', endpoint_url='http://127.0.0.1:9',\n"
        "    aws_access_key_id='a', aws_secret_access_key='b')\n"
        "with contextlib.suppress(Exception): client.list_models(MaxResults=1)\n"
        "with contextlib.suppress(Exception): client.delete_cluster(ClusterName='c')\n"
        "with contextlib.suppress(Exception): client.list_models(MaxResults=1)\n"
    )
    environment = {**os.environ, **services.recording(calls), "AWS_MAX_ATTEMPTS": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert calls.read_text().split() == ["sagemaker.ListModels", "sagemaker.DeleteCluster"]
    comparison = compare(calls)
    assert comparison.forbidden == {"sagemaker.DeleteCluster"}
    assert "1 of them not in Airflow's policy: sagemaker.DeleteCluster" in str(comparison)
    assert "sagemaker.CreateTrainingJob" in comparison.uncalled
    assert not comparison.uncalled & NOT_CAUSED.keys()
