"""Processing jobs through boto3: inputs, outputs, and how a job ends."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local_sagemaker.processing_support import PROCESSING, ProcessingRunner
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.local_sagemaker.training_support import IMAGE

COPIES = """
import json, os, pathlib, sys
source, target = (pathlib.Path(word) for word in sys.argv[1:3])
files = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
config = json.loads((base / "config" / "processingjobconfig.json").read_text())
resources = json.loads((base / "config" / "resourceconfig.json").read_text())
assert pathlib.Path(config["ProcessingInputs"][0]["S3Input"]["LocalPath"], "evaluate.py").samefile(__file__)
assert pathlib.Path(os.environ["DATA"]) == source
assert os.environ["PROCESSING_JOB_NAME"] == config["ProcessingJobName"]
assert resources["hosts"] == [resources["current_host"]] == ["algo-1"]
(target / "nested").mkdir()
(target / "nested" / "files.json").write_text(json.dumps(files))
(base / "output" / "message").write_text("saw " + ", ".join(files))
import torch
print("torch", torch.tensor([1, 2]).sum().item())
print("uri", sys.argv[3])
"""
WAITS = """
import pathlib, sys, time
target = pathlib.Path(sys.argv[1])
(target / "partial.txt").write_text("so far")
print("running")
time.sleep(300)
"""


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> ProcessingRunner:
    return ProcessingRunner(runtime, bucket, role_arn)


def application(*arguments: str) -> dict[str, Any]:
    return {
        "ImageUri": IMAGE,
        "ContainerEntrypoint": ["python3", f"{PROCESSING}/code/evaluate.py"],
        **({"ContainerArguments": list(arguments)} if arguments else {}),
    }


def test_a_job_sees_its_inputs_and_leaves_its_outputs(jobs: ProcessingRunner) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        jobs.put(f"processing-data/{name}")
    arn = jobs.create(
        "copies",
        COPIES,
        AppSpecification=application(f"{PROCESSING}/data", f"{PROCESSING}/out", "s3://x/opt/ml/processing"),
        Environment={"DATA": f"{PROCESSING}/data"},
        ProcessingInputs=[jobs.input("data", f"s3://{jobs.bucket}/processing-data")],
        ProcessingOutputConfig=jobs.outputs("copies"),
        Tags=[{"Key": "run", "Value": "one"}],
    )
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:processing-job/copies"
    job = jobs.wait("copies")
    assert job["ProcessingJobStatus"] == "Completed", jobs.log("copies")
    assert job["ExitMessage"] == "saw a/1.jpg, b/2.jpg"
    assert "FailureReason" not in job
    assert job["CreationTime"] <= job["ProcessingStartTime"] <= job["ProcessingEndTime"]
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 86400}
    assert job["ProcessingInputs"][1]["S3Input"]["S3DataDistributionType"] == "FullyReplicated"
    assert job["Environment"] == {"DATA": f"{PROCESSING}/data"}
    assert jobs.objects("out/copies/") == {"nested/files.json": json.dumps(["a/1.jpg", "b/2.jpg"]).encode()}
    assert jobs.log("copies") == ["torch 3", "uri s3://x/opt/ml/processing"]
    assert jobs.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "run", "Value": "one"}]


def test_the_data_of_an_ended_job_is_freed(jobs: ProcessingRunner) -> None:
    jobs.create(
        "frees",
        "import sys; open(sys.argv[1] + '/big', 'wb').write(bytes(10**6))",
        AppSpecification=application(f"{PROCESSING}/out"),
        ProcessingOutputConfig=jobs.outputs("frees"),
    )
    assert jobs.wait("frees")["ProcessingJobStatus"] == "Completed"
    assert len(jobs.objects("out/frees/")["big"]) == 10**6
    folder = jobs.runtime.root / "processing-job" / "frees"
    wait_for(lambda: not (folder / "environment").exists(), 30, "the job's environment to go")
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"processingjobconfig.json", "resourceconfig.json", "container.log"} <= left
    assert not left & {"big", "evaluate.py"}


def test_a_failing_script_fails_the_job_with_its_exception(jobs: ProcessingRunner) -> None:
    script = """
import os, pathlib
pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "output", "message").write_text("é" * 1000)
pathlib.Path(os.environ["OUT"], "half.txt").write_text("half")
raise ValueError("there is no test split; add one")
"""
    jobs.create(
        "fails",
        script,
        Environment={"OUT": f"{PROCESSING}/out"},
        ProcessingOutputConfig=jobs.outputs("fails"),
    )
    job = jobs.wait("fails")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: ValueError: there is no test split; add one, exit code: 1"
    assert job["ExitMessage"] == "é" * 512
    assert jobs.objects("out/fails/") == {}


def test_a_command_that_does_not_exist_fails_the_job(jobs: ProcessingRunner) -> None:
    jobs.create("lacks", AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["no-such-command"]})
    job = jobs.wait("lacks")
    assert job["ProcessingJobStatus"] == "Failed"
    assert "no-such-command" in job["FailureReason"]


def test_a_message_that_is_not_utf_8_fails_the_job(jobs: ProcessingRunner) -> None:
    script = "import os; open(os.environ['SAGEMAKER_BASE_DIR'] + '/output/message', 'wb').write(b'\\xff')"
    jobs.create("no-text", script)
    job = jobs.wait("no-text")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError")
    assert "not UTF-8" in job["FailureReason"]


def test_a_shell_command_finds_the_image_s_python_and_paths(jobs: ProcessingRunner) -> None:
    command = f"cd {PROCESSING}/code && python3 evaluate.py && command -v python3 && ls {PROCESSING}"
    jobs.create(
        "shell",
        "import torch, sys; print(sys.prefix)",
        AppSpecification={"ImageUri": IMAGE, "ContainerEntrypoint": ["/bin/sh", "-c", command]},
    )
    assert jobs.wait("shell")["ProcessingJobStatus"] == "Completed", jobs.log("shell")
    own = str(jobs.runtime.root / "processing-job" / "shell" / "environment")
    assert jobs.log("shell") == [own, f"{own}/bin/python3", "code"]


def test_a_stopped_job_keeps_its_continuous_outputs(jobs: ProcessingRunner) -> None:
    jobs.create(
        "stops",
        WAITS,
        AppSpecification=application(f"{PROCESSING}/out"),
        ProcessingOutputConfig=jobs.outputs("stops", "Continuous"),
    )
    jobs.wait_for_line("stops", "running")
    jobs.sagemaker.stop_processing_job(ProcessingJobName="stops")
    job = jobs.wait("stops")
    assert job["ProcessingJobStatus"] == "Stopped"
    assert "FailureReason" not in job
    assert jobs.objects("out/stops/") == {"partial.txt": b"so far"}
    with pytest.raises(ClientError, match="is in status Stopped") as error:
        jobs.sagemaker.stop_processing_job(ProcessingJobName="stops")
    assert error.value.response["Error"]["Code"] == "ValidationException"


def test_a_job_out_of_time_is_stopped_and_says_so(jobs: ProcessingRunner) -> None:
    jobs.create(
        "slow",
        WAITS,
        AppSpecification=application(f"{PROCESSING}/code"),
        StoppingCondition={"MaxRuntimeInSeconds": 1},
    )
    job = jobs.wait("slow")
    assert job["ProcessingJobStatus"] == "Stopped"
    assert "MaxRuntimeInSeconds of 1" in job["FailureReason"]


def test_a_manifest_names_the_objects_of_an_input(jobs: ProcessingRunner) -> None:
    for name in ("kept.txt", "left.txt"):
        jobs.put(f"manifest-data/{name}")
    manifest = [{"prefix": f"s3://{jobs.bucket}/manifest-data/"}, "kept.txt"]
    uri = jobs.put("manifests/one.manifest", json.dumps(manifest).encode())
    jobs.create(
        "manifest",
        "import os, sys; print(os.listdir(sys.argv[1]))",
        AppSpecification=application(f"{PROCESSING}/data"),
        ProcessingInputs=[jobs.input("data", uri, S3DataType="ManifestFile")],
    )
    assert jobs.wait("manifest")["ProcessingJobStatus"] == "Completed"
    assert jobs.log("manifest") == ["['kept.txt']"]


def test_an_input_within_another_keeps_both(jobs: ProcessingRunner) -> None:
    jobs.put("outer/one.txt")
    jobs.put("inner/two.txt")
    jobs.create(
        "nested",
        "import pathlib, sys; print(sorted(p.name for p in pathlib.Path(sys.argv[1]).rglob('*.txt')))",
        AppSpecification=application(f"{PROCESSING}/data"),
        ProcessingInputs=[
            jobs.input("data/deep", f"s3://{jobs.bucket}/inner"),
            jobs.input("data", f"s3://{jobs.bucket}/outer"),
        ],
    )
    assert jobs.wait("nested")["ProcessingJobStatus"] == "Completed"
    assert jobs.log("nested") == ["['one.txt', 'two.txt']"]


def test_a_name_is_taken_until_the_job_is_deleted(jobs: ProcessingRunner) -> None:
    jobs.create("taken", "")
    with pytest.raises(ClientError, match="must be unique") as error:
        jobs.create("taken", "")
    assert error.value.response["Error"]["Code"] == "ResourceInUse"
    jobs.wait("taken")
    jobs.sagemaker.delete_processing_job(ProcessingJobName="taken")
    with pytest.raises(ClientError, match="Could not find requested job") as error:
        jobs.describe("taken")
    assert error.value.response["Error"]["Code"] == "ValidationException"
    assert not (jobs.runtime.root / "processing-job" / "taken").exists()


def test_jobs_are_listed_by_page(jobs: ProcessingRunner) -> None:
    for number in range(3):
        jobs.create(f"listed-{number}", "raise SystemExit(3)" if number == 2 else "")
    for number in range(3):
        jobs.wait(f"listed-{number}")
    pages = jobs.sagemaker.get_paginator("list_processing_jobs").paginate(
        NameContains="listed-", SortBy="Name", SortOrder="Ascending", MaxResults=2
    )
    found = [[item["ProcessingJobName"] for item in page["ProcessingJobSummaries"]] for page in pages]
    assert found == [["listed-0", "listed-1"], ["listed-2"]]
    failed = jobs.sagemaker.list_processing_jobs(NameContains="listed-", StatusEquals="Failed")
    [summary] = failed["ProcessingJobSummaries"]
    assert summary["ProcessingJobName"] == "listed-2"
    assert "exit code: 3" in summary["FailureReason"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AppSpecification": {"ImageUri": "nobody/knows:1"}}, "nobody/knows:1"),
        ({"AppSpecification": {"ImageUri": IMAGE}}, "ContainerEntrypoint"),
        (
            {
                "ProcessingResources": {
                    "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
                }
            },
            "InstanceCount 2",
        ),
        ({"ProcessingOutputConfig": {"Outputs": [{"OutputName": "out"}]}}, "no S3Output"),
    ],
)
def test_unsupported_requests_are_refused(jobs: ProcessingRunner, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ClientError, match=words) as error:
        jobs.create("refused", **change)
    assert error.value.response["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"LocalPath": "/opt/ml/model"}, "outside /opt/ml/processing"),
        ({"LocalPath": "/opt/ml/processing/../x"}, "outside /opt/ml/processing"),
        ({"S3Uri": "s3://no-such-bucket/data"}, "No S3 objects found"),
        ({"S3InputMode": "Pipe"}, "S3InputMode Pipe"),
        ({"S3CompressionType": "Gzip"}, "only be used if the S3InputMode is Pipe"),
    ],
)
def test_inputs_that_cannot_be_provided_are_refused(
    jobs: ProcessingRunner, members: dict[str, Any], words: str
) -> None:
    uri = jobs.put("refused/data.txt.gz", gzip.compress(b"data"))
    with pytest.raises(ClientError, match=words):
        jobs.create("refused", ProcessingInputs=[jobs.input("data", uri, **members)])


def test_an_output_needs_a_bucket(jobs: ProcessingRunner) -> None:
    outputs = jobs.outputs("refused")
    outputs["Outputs"][0]["S3Output"]["S3Uri"] = "s3://no-such-bucket/out"
    with pytest.raises(ClientError, match="no bucket s3://no-such-bucket"):
        jobs.create("refused", ProcessingOutputConfig=outputs)


def test_what_the_application_manages_is_left_to_it(jobs: ProcessingRunner) -> None:
    managed = {**jobs.input("mine", f"s3://{jobs.bucket}/not-there-yet"), "AppManaged": True}
    jobs.create(
        "managed",
        "import os, sys; print(os.path.exists(sys.argv[1]))",
        AppSpecification=application(f"{PROCESSING}/mine"),
        ProcessingInputs=[managed],
    )
    assert jobs.wait("managed")["ProcessingJobStatus"] == "Completed"
    assert jobs.log("managed") == ["False"]
