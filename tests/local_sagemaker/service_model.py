"""Checks requests against SageMaker's service model in the local SageMaker's way, from any environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.local_sagemaker.runtime_process import environment_python

_CHECK = """
import json, sys
from local_sagemaker.errors import ApiError
from local_sagemaker.protocol import parse_request
for operation, request in json.load(sys.stdin).items():
    try:
        parse_request(operation, json.dumps(request).encode())
    except ApiError as error:
        sys.exit(f"{operation}: {error}")
"""


def check_requests(requests: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError naming an operation whose request violates constraints, and which ones."""
    command = [str(environment_python("sagemaker")), "-c", _CHECK]
    done = subprocess.run(command, input=json.dumps(requests), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
