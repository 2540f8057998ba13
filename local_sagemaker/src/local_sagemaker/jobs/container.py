"""The environment variables of every job's container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from local_sagemaker.context import Settings
from local_sagemaker.image_environments import Environment

HOST = "algo-1"
THREADS_VARIABLE = "LOCAL_SAGEMAKER_THREADS_PER_JOB"

_INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE",
              "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")  # fmt: skip
_INHERITED_PREFIXES = ("PIP_", "CUDA_", "NVIDIA_")
_NO_PROXY = "127.0.0.1,localhost"


def default_variables() -> dict[str, str]:
    """Variables that a request's `Environment` may override."""
    return {
        **dict(_inherited()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "UTF-8",
        "OMP_NUM_THREADS": threads_per_job(),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would take cores from other jobs
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def platform_variables(base: Path, environment: Environment, path: str, settings: Settings) -> dict[str, str]:
    """Variables that the platform always sets. `base` stands for /opt/ml; `path` is the machine's PATH."""
    return {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{path}",
        "SAGEMAKER_BASE_DIR": str(base),
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_ENDPOINT_URL": settings.url,
        "S3_ENDPOINT_URL": settings.url,
        "AWS_ACCESS_KEY_ID": settings.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": settings.credentials.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": _NO_PROXY,
        "no_proxy": _NO_PROXY,
    }


def threads_per_job() -> str:
    """Threads of a job's numerical libraries: all cores, or LOCAL_SAGEMAKER_THREADS_PER_JOB.

    Does not depend on the number of running jobs, because the order of floating-point sums, and so the model,
    depends on the number of threads.
    """
    return os.environ.get(THREADS_VARIABLE) or str(usable_cores())


def usable_cores() -> int:
    """The cores that this process may use, which can be fewer than the machine's."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _inherited() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES):
            yield name, value
