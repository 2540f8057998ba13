"""`make fuzz`: a local SageMaker on an empty folder, all kinds of input, and the verdict.

    python -m tests.fuzz [--seed 1] [--examples 500] [--only "S3"]

A fault is a server error, a response with a traceback, no response in 20 seconds, a file outside its folder,
an error of another type than the interface names, or a local SageMaker that does not work afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botocore import xform_name

from tests.fuzz.creations import BUCKET, GROUP, MODEL_DATA, ROLE, SERVED, creations
from tests.local_sagemaker.hosting_support import HostingClient
from tests.local_sagemaker.runtime_process import REPOSITORY, RuntimeProcess, environment_python, wait_for
from tests.local_sagemaker.training_support import archive

# Environment, module, and what is on its path beside the repository.
PARTS = (
    ("sagemaker", "tests.fuzz.service", "local_sagemaker/src"),
    ("training", "tests.fuzz.images", "sagemaker_code"),
    ("airflow", "tests.fuzz.files", "plugins"),
)
SCRIPT = "print('accuracy=0.5')\n"
END_SECONDS = 180.0  # for everything that fuzzing started to end


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=500, help="inputs of each kind (%(default)s)")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    options = parser.parse_args()
    started = time.monotonic()
    tried, faults, kinds = 0, [], 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as parent:
        beside = Path(parent) / "beside"
        beside.write_text("untouched")
        runtime = RuntimeProcess(Path(parent) / "root").start()
        try:
            prepare(runtime)
            for environment, module, path in PARTS:
                for name, (count, found) in tallies(environment, module, path, runtime, options).items():
                    tried, kinds = tried + count, kinds + 1
                    faults += [name] * found
            faults += afterwards(runtime)
        finally:
            runtime.close()
        if sorted(path.name for path in Path(parent).iterdir()) != ["beside", "root"]:
            faults.append(f"files beside the root: {list(Path(parent).iterdir())}")
        if beside.read_text() != "untouched":
            faults.append("a file beside the root was written")
    for name in sorted(set(faults)):
        print(f"FAULT: {name}")
    took = time.monotonic() - started
    size = f"{tried} inputs of {kinds} kinds in {took:.0f} s, seed {options.seed}"
    print(f"{size}, {len(faults)} faults: {'BAD' if faults else 'good'}")
    return 1 if faults else 0


def prepare(runtime: RuntimeProcess) -> None:
    """Buckets, a role, code that ends at once, and an endpoint with the project's own classifier."""
    s3, iam = runtime.client("s3"), runtime.client("iam")
    for bucket in (BUCKET, "fuzz-s3"):
        s3.create_bucket(Bucket=bucket)
    iam.create_role(RoleName=ROLE.rpartition("/")[2], AssumeRolePolicyDocument="{}")
    s3.put_object(Bucket=BUCKET, Key="code/sourcedir.tar.gz", Body=archive({"train.py": SCRIPT}))
    s3.put_object(Bucket=BUCKET, Key="code/train.py", Body=SCRIPT)
    s3.put_object(Bucket=BUCKET, Key="data/a.txt", Body=b"a")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.tar.gz"
        _run("training", "tests.fuzz.classifier_model", "sagemaker_code", str(model))
        s3.upload_file(str(model), BUCKET, MODEL_DATA.removeprefix(f"s3://{BUCKET}/"))
    client = HostingClient(runtime, BUCKET, ROLE)
    requests = creations(SERVED)
    client.sagemaker.create_model_package_group(ModelPackageGroupName=GROUP)
    client.sagemaker.create_model(**requests["CreateModel"])
    client.sagemaker.create_endpoint_config(**requests["CreateEndpointConfig"])
    client.endpoint(SERVED, SERVED)


def tallies(
    environment: str, module: str, path: str, runtime: RuntimeProcess, options: argparse.Namespace
) -> Mapping[str, tuple[int, int]]:
    """What one part tried and found, by kind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tallies.json"
        arguments = [f"--seed={options.seed}", f"--examples={options.examples}", f"--only={options.only}"]
        _run(environment, module, path, str(file), f"--url={runtime.url}", *arguments)
        found: Mapping[str, tuple[int, int]] = json.loads(file.read_text())
        return found


def _run(environment: str, module: str, path: str, *arguments: str) -> None:
    python_path = os.pathsep.join([str(REPOSITORY / path), str(REPOSITORY)])
    command = [str(environment_python(environment)), "-m", module, *arguments]
    subprocess.run(command, check=True, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": python_path})


def afterwards(runtime: RuntimeProcess) -> list[str]:
    """What does not end when it is told to, and what does not come back after a restart."""
    sagemaker = runtime.client("sagemaker")
    faults = []
    try:
        wait_for(lambda: not _running(sagemaker), END_SECONDS, "jobs and endpoints to end", every=1)
    except TimeoutError as error:
        faults.append(f"{error}: {_running(sagemaker)}")
    runtime.stop()
    runtime.start()
    status = wait_for(lambda: _endpoint_status(runtime), END_SECONDS, "the endpoint after a restart")
    if status != "InService":
        faults.append(f"after a restart the endpoint is {status}")
    runtime.client("sagemaker").delete_endpoint(EndpointName=SERVED)
    return faults


def _endpoint_status(runtime: RuntimeProcess) -> str | None:
    status: str = runtime.client("sagemaker").describe_endpoint(EndpointName=SERVED)["EndpointStatus"]
    return None if status in {"Creating", "Updating"} else status


def _running(sagemaker: Any) -> list[str]:
    """What fuzzing left running, after it was told to stop."""
    running = []
    for kind in ("HyperParameterTuningJob", "TrainingJob", "ProcessingJob"):
        for job in getattr(sagemaker, xform_name(f"List{kind}s"))()[f"{kind}Summaries"]:
            if job[f"{kind}Status"] in {"InProgress", "Stopping"}:
                name = job[f"{kind}Name"]
                running.append(name)
                getattr(sagemaker, xform_name(f"Stop{kind}"))(**{f"{kind}Name": name})
    for endpoint in sagemaker.list_endpoints()["Endpoints"]:
        if endpoint["EndpointName"] != SERVED:
            running.append(endpoint["EndpointName"])
            if endpoint["EndpointStatus"] in {"InService", "Failed", "OutOfService"}:
                sagemaker.delete_endpoint(EndpointName=endpoint["EndpointName"])
    return running


if __name__ == "__main__":
    sys.exit(main())
