"""Training jobs from creation to artifacts, through boto3 and AWS's training toolkit."""

from __future__ import annotations

import itertools
import json
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.local_sagemaker.training_support import JobRunner

OBSERVE = """
import json, os, pathlib, sys
print("epoch=1 loss=0.5")
print("epoch=2 loss=nonsense")
print("epoch=3 loss=0.25 accuracy=0.1234567890123")
print("  0%|  | 1/2\\r 50%|  | 1/2\\r100%|##| 2/2 loss=9", file=sys.stderr)
base = pathlib.Path(os.environ["SM_MODEL_DIR"]).parent
channel = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"])
seen = {
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "configuration": {p.stem: json.loads(p.read_text()) for p in (base / "input" / "config").glob("*.json")},
    "channel": {str(p.relative_to(channel)): p.read_text() for p in channel.rglob("*") if p.is_file()},
    "folders": sorted(str(p.relative_to(base)) for p in base.rglob("*") if p.is_dir()),
}
(base / "model" / "weights").mkdir()
(base / "model" / "weights" / "model.bin").write_bytes(b"weights")
(base / "model" / "model.json").write_text("{}")
pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def jobs(runtime: RuntimeProcess, bucket: str, role_arn: str) -> JobRunner:
    return JobRunner(runtime, bucket, role_arn)


@pytest.fixture(scope="module")
def completed(jobs: JobRunner) -> dict[str, Any]:
    """The final description of a completed job."""
    for name in ("a/1.txt", "a/2.txt", "b/1.txt"):
        jobs.put(f"training/data/train/{name}", name.encode())
    jobs.put("training/data/train/", b"")
    jobs.create(
        "completed",
        OBSERVE,
        HyperParameters={"lr": "0.1", "batch-size": '"32"', "_tuning_objective_metric": "loss"},
        InputDataConfig=[jobs.channel("train", "training/data/train", ContentType="text/plain")],
        Environment={"COLOUR": "blue"},
        Tags=[{"Key": "team", "Value": "vision"}],
        AlgorithmSpecification={
            "TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6",
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": "loss", "Regex": r"\bloss=(\S+)"},
                {"Name": "accuracy", "Regex": r"\baccuracy=(\S+)"},
                {"Name": "never", "Regex": r"\bnever=(\S+)"},
            ],
        },
    )
    jobs.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName="completed", WaiterConfig={"Delay": 1, "MaxAttempts": 120}
    )
    return jobs.describe("completed")


@pytest.fixture(scope="module")
def seen(jobs: JobRunner, completed: dict[str, Any]) -> dict[str, Any]:
    """What the script found in its container."""
    content: dict[str, Any] = json.loads(jobs.members("out/completed/output/output.tar.gz")["seen.json"])
    return content


def test_a_job_completes_with_aws_s_phases(completed: dict[str, Any]) -> None:
    assert completed["TrainingJobStatus"] == completed["SecondaryStatus"] == "Completed"
    transitions = completed["SecondaryStatusTransitions"]
    assert [item["Status"] for item in transitions] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    for before, after in itertools.pairwise(transitions):
        assert before["EndTime"] == after["StartTime"]
    assert completed["TrainingStartTime"] == transitions[1]["StartTime"]
    assert completed["TrainingEndTime"] == transitions[-1]["StartTime"] == completed["LastModifiedTime"]
    assert completed["BillableTimeInSeconds"] == completed["TrainingTimeInSeconds"] >= 1


def test_describes_the_request_with_aws_defaults(completed: dict[str, Any]) -> None:
    assert completed["OutputDataConfig"]["CompressionType"] == "GZIP"
    assert completed["InputDataConfig"][0]["CompressionType"] == "None"
    assert completed["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataDistributionType"] == (
        "FullyReplicated"
    )
    assert completed["AlgorithmSpecification"]["EnableSageMakerMetricsTimeSeries"] is True
    assert completed["EnableManagedSpotTraining"] is False
    assert completed["StoppingCondition"] == {"MaxRuntimeInSeconds": 600}
    assert completed["HyperParameters"]["lr"] == "0.1"


def test_final_metrics_are_the_last_values(completed: dict[str, Any]) -> None:
    metrics = {item["MetricName"]: item for item in completed["FinalMetricDataList"]}
    assert {name: item["Value"] for name, item in metrics.items()} == {
        "loss": 9.0,
        "accuracy": pytest.approx(0.1234567890123, rel=1e-6),
    }
    assert metrics["loss"]["Timestamp"].microsecond == 0


def test_logs_are_lines_of_one_stream(jobs: JobRunner, completed: dict[str, Any]) -> None:
    log = jobs.log("completed")
    assert [line for line in log if line.startswith("epoch=")] == [
        "epoch=1 loss=0.5",
        "epoch=2 loss=nonsense",
        "epoch=3 loss=0.25 accuracy=0.1234567890123",
    ]
    assert "100%|##| 2/2 loss=9" in log
    assert not any("\r" in line for line in log)


def test_script_gets_the_container_contract(seen: dict[str, Any]) -> None:
    assert seen["arguments"] == ["--batch-size", "32", "--lr", "0.1"]
    assert seen["channel"] == {"a/1.txt": "a/1.txt", "a/2.txt": "a/2.txt", "b/1.txt": "b/1.txt"}
    environment = seen["environment"]
    assert environment["TRAINING_JOB_NAME"] == "completed"
    assert environment["TRAINING_JOB_ARN"].endswith(":training-job/completed")
    assert environment["COLOUR"] == "blue"
    assert environment["SM_CURRENT_HOST"] == "algo-1"
    assert environment["SM_CURRENT_INSTANCE_TYPE"] == "ml.m5.large"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "AIRFLOW_HOME" not in environment
    assert {"model", "input/data/train", "output/data", "code"} <= set(seen["folders"])
    assert seen["configuration"]["inputdataconfig"] == {
        "train": {
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
            "ContentType": "text/plain",
        }
    }
    assert seen["configuration"]["resourceconfig"]["hosts"] == ["algo-1"]


def test_artifacts_are_in_s3(jobs: JobRunner, completed: dict[str, Any], bucket: str) -> None:
    assert completed["ModelArtifacts"]["S3ModelArtifacts"] == (
        f"s3://{bucket}/out/completed/output/model.tar.gz"
    )
    assert jobs.members("out/completed/output/model.tar.gz") == {
        "model.json": b"{}",
        "weights/model.bin": b"weights",
    }


def test_logs_but_no_data_of_an_ended_job_are_kept(
    runtime: RuntimeProcess, completed: dict[str, Any]
) -> None:
    folder = runtime.root / "training-job" / "completed"
    assert (folder / "log.jsonl").exists()
    assert not (folder / "opt_ml" / "input" / "data").exists()
    assert not (folder / "opt_ml" / "model").exists()


def test_tags_are_listed(jobs: JobRunner, completed: dict[str, Any]) -> None:
    tags = jobs.sagemaker.list_tags(ResourceArn=completed["TrainingJobArn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "vision"}]


# -- failures ---------------------------------------------------------------------------------------------

FAILURES = {
    "raises": (
        "def load():\n    raise ValueError('class folder cats is empty; add images')\nload()",
        "class folder cats is empty; add images",
    ),
    "arguments": (
        "import argparse\nargparse.ArgumentParser().parse_args(['--lr', '1'])",
        "error: unrecognized arguments: --lr 1",
    ),
    "own-failure": (
        "import os, pathlib\n"
        "pathlib.Path(os.environ['SM_OUTPUT_DIR'], 'failure').write_text('the disk of labels is missing')\n"
        "raise SystemExit(3)",
        "AlgorithmError: the disk of labels is missing, exit code:",
    ),
    "syntax": ("def broken(:\n    pass\n", "invalid syntax"),
}


@pytest.fixture(scope="module")
def failed(jobs: JobRunner) -> dict[str, dict[str, Any]]:
    """Final descriptions of jobs with failing scripts, by kind of failure."""
    for kind, (script, _) in FAILURES.items():
        jobs.create(f"fails-{kind}", script)
    missing = {"sagemaker_submit_directory": json.dumps(f"s3://{jobs.bucket}/code/no-such.tar.gz")}
    jobs.create("fails-no-code", "", HyperParameters=missing)
    return {kind: jobs.wait(f"fails-{kind}") for kind in [*FAILURES, "no-code"]}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_reason_has_the_script_s_exception(failed: dict[str, dict[str, Any]], kind: str) -> None:
    job = failed[kind]
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ")
    assert FAILURES[kind][1] in job["FailureReason"]
    assert len(job["FailureReason"]) <= 1024


def test_code_that_is_not_in_s3_is_named(failed: dict[str, dict[str, Any]]) -> None:
    assert "/code/no-such.tar.gz; upload it or correct the URI" in failed["no-code"]["FailureReason"]


def test_the_waiter_recognises_a_failed_job(jobs: JobRunner, failed: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(WaiterError):
        jobs.sagemaker.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName="fails-raises", WaiterConfig={"Delay": 1, "MaxAttempts": 1}
        )


# -- stopping ---------------------------------------------------------------------------------------------

UNTIL_STOPPED = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop"))
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.bin").write_text("so far")
print("running")
for _ in range(300):
    time.sleep(1)
"""


def test_a_stopped_job_keeps_what_it_had_saved_and_gets_no_signal(jobs: JobRunner) -> None:
    jobs.create("stopped", UNTIL_STOPPED)
    jobs.wait_for_line("stopped", "running")
    jobs.sagemaker.stop_training_job(TrainingJobName="stopped")
    assert jobs.describe("stopped")["TrainingJobStatus"] in {"Stopping", "Stopped"}
    job = jobs.wait("stopped")
    assert job["TrainingJobStatus"] == job["SecondaryStatus"] == "Stopped"
    statuses = [item["Status"] for item in job["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Stopping", "Uploading", "Stopped"]
    assert "asked to stop" not in jobs.log("stopped")
    assert jobs.members("out/stopped/output/model.tar.gz") == {"model.bin": b"so far"}
    with pytest.raises(ClientError, match="is in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName="stopped")


def test_a_job_ends_at_its_maximum_runtime(jobs: JobRunner) -> None:
    jobs.create("limited", UNTIL_STOPPED, StoppingCondition={"MaxRuntimeInSeconds": 6})
    job = jobs.wait("limited")
    assert job["TrainingJobStatus"] == "Stopped"
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert "FailureReason" not in job
    assert job["TrainingTimeInSeconds"] < 60


# -- the container's environment ----------------------------------------------------------------------


def wheel() -> bytes:
    """A wheel with one module, which needs neither download nor build."""
    info = "tinything-1.0.dist-info"
    files = {
        "tinything.py": "VALUE = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tinything\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_requirements_are_installed_for_one_job_only(jobs: JobRunner) -> None:
    name = "tinything-1.0-py3-none-any.whl"
    files: dict[str, str | bytes] = {"requirements.txt": f"--no-index\n./{name}\n", name: wheel()}
    jobs.create("installs", "import tinything; print(f'value {tinything.VALUE}')", files)
    jobs.create(
        "is-spared", "import importlib.util; print(f\"found {importlib.util.find_spec('tinything')}\")"
    )
    assert jobs.wait("installs")["TrainingJobStatus"] == "Completed"
    assert jobs.wait("is-spared")["TrainingJobStatus"] == "Completed"
    assert "value 42" in jobs.log("installs")
    assert "found None" in jobs.log("is-spared")


def test_a_job_cannot_alter_the_data_of_later_jobs(jobs: JobRunner) -> None:
    jobs.put("training/precious/label.txt", b"original")
    channels = [jobs.channel("train", "training/precious/")]
    spoil = (
        "import os, pathlib\npath = pathlib.Path(os.environ['SM_CHANNEL_TRAIN'], 'label.txt')\n"
        "path.chmod(0o644)\npath.write_text('spoiled!')\nprint(f'content {path.read_text()}')"
    )
    show = "import os, pathlib\nprint(pathlib.Path(os.environ['SM_CHANNEL_TRAIN'], 'label.txt').read_text())"
    jobs.create("spoils", spoil, InputDataConfig=channels)
    assert jobs.wait("spoils")["TrainingJobStatus"] == "Completed"
    assert "content spoiled!" in jobs.log("spoils")
    jobs.create("reads", show, InputDataConfig=channels)
    assert jobs.wait("reads")["TrainingJobStatus"] == "Completed"
    assert "original" in jobs.log("reads")


# -- what goes to S3 while a job runs ------------------------------------------------------------

CHECKPOINTING = """
import json, os, pathlib, time
base = pathlib.Path(os.environ["SM_MODEL_DIR"]).parent
checkpoints = base / "checkpoints"
print("found", sorted(p.name for p in checkpoints.iterdir()))
(checkpoints / "epoch-1.pt").write_text("one")
print("written")
while not (base / "go").exists():
    time.sleep(0.1)
(checkpoints / "epoch-2.pt").write_text("two")
"""


def test_checkpoints_are_in_s3_while_the_job_runs_and_in_the_next_job(
    jobs: JobRunner, runtime: RuntimeProcess
) -> None:
    config = {"S3Uri": f"s3://{jobs.bucket}/checkpoints/one"}
    jobs.create("checkpoints", CHECKPOINTING, CheckpointConfig=config)
    wait_for(lambda: jobs.keys("checkpoints/one/") == ["epoch-1.pt"], 120, "a checkpoint in S3")
    assert jobs.describe("checkpoints")["TrainingJobStatus"] == "InProgress"
    base = runtime.root / "training-job"
    (base / "checkpoints" / "opt_ml" / "go").touch()
    assert jobs.wait("checkpoints")["TrainingJobStatus"] == "Completed"
    assert jobs.keys("checkpoints/one/") == ["epoch-1.pt", "epoch-2.pt"]
    show = "import os, pathlib\nbase = pathlib.Path(os.environ['SM_MODEL_DIR']).parent / 'checkpoints'\n"
    show += "print({p.name: p.read_text() for p in sorted(base.iterdir())})"
    jobs.create("resumes", show, CheckpointConfig=config)
    assert jobs.wait("resumes")["TrainingJobStatus"] == "Completed"
    assert "{'epoch-1.pt': 'one', 'epoch-2.pt': 'two'}" in jobs.log("resumes")


DEBUGGED = """
import json, os, pathlib
hook = json.load(open(os.environ["SMDEBUG_CONFIG_FILE_PATH"]))
profiler = json.load(open(os.environ["SMPROFILER_CONFIG_PATH"]))
tensors = pathlib.Path(hook["LocalPath"])
index = "index/000000000/000000000000_worker_0.json"
events = "events/000000000000/000000000000_worker_0.tfevents"
for name in (index, events):
    (tensors / name).parent.mkdir(parents=True, exist_ok=True)
    (tensors / name).write_text("{}")
(tensors / "events" / "half.tfevents.tmp").write_text("not finished")
framework = pathlib.Path(profiler["ProfilingParameters"]["LocalPath"]) / "framework" / "pevents"
framework.mkdir(parents=True)
(framework / "1_model_timeline.json").write_text("[]")
print(f"hook {json.dumps(hook)}")
"""


def test_debugger_and_profiler_output_is_uploaded(jobs: JobRunner) -> None:
    hook = {
        "S3OutputPath": f"s3://{jobs.bucket}/debug/",
        "HookParameters": {"train.save_interval": "100", "eval.save_interval": "10"},
        "CollectionConfigurations": [
            {"CollectionName": "gradients", "CollectionParameters": {"save_interval": "500"}}
        ],
    }
    profiler = {
        "S3OutputPath": f"s3://{jobs.bucket}/debug",
        "ProfilingIntervalInMilliseconds": 500,
        "ProfilingParameters": {"DataloaderProfilingConfig": '{"StartStep": 0, "NumSteps": 10}'},
    }
    rule = {
        "RuleConfigurationName": "VanishingGradient",
        "RuleEvaluatorImage": "503895931360.dkr.ecr.us-east-1.amazonaws.com/sagemaker-debugger-rules:latest",
        "RuleParameters": {"rule_to_invoke": "VanishingGradient"},
    }
    jobs.create(
        "debugged",
        DEBUGGED,
        DebugHookConfig=hook,
        DebugRuleConfigurations=[rule],
        ProfilerConfig=profiler,
    )
    job = jobs.wait("debugged")
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert job["DebugHookConfig"] == hook
    assert job["DebugRuleConfigurations"] == [{**rule, "VolumeSizeInGB": 0}]
    assert job["ProfilerConfig"]["DisableProfiler"] is False
    assert job["ProfilingStatus"] == "Enabled"
    assert jobs.keys("debug/debugged/debug-output/") == [
        "events/000000000000/000000000000_worker_0.tfevents",
        "index/000000000/000000000000_worker_0.json",
        "training_job_end.ts",
    ]
    assert "framework/pevents/1_model_timeline.json" in jobs.keys("debug/debugged/profiler-output/")
    assert "framework/training_job_end.ts" in jobs.keys("debug/debugged/profiler-output/")
    line = next(line for line in jobs.log("debugged") if line.startswith("hook"))
    assert json.loads(line.removeprefix("hook"))["HookParameters"] == hook["HookParameters"]


def test_uncompressed_output_goes_to_s3_as_files(jobs: JobRunner) -> None:
    script = "import os, pathlib\npathlib.Path(os.environ['SM_MODEL_DIR'], 'model.bin').write_text('m')"
    output = {"S3OutputPath": f"s3://{jobs.bucket}/out", "CompressionType": "NONE"}
    jobs.create("uncompressed", script, OutputDataConfig=output)
    job = jobs.wait("uncompressed")
    uri = f"s3://{jobs.bucket}/out/uncompressed/output/model/"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == uri
    assert jobs.keys("out/uncompressed/output/") == ["model/model.bin"]


# -- list, update, delete ----------------------------------------------------------------------


def test_listing_filters_sorts_and_pages(jobs: JobRunner, failed: dict[str, Any]) -> None:
    by_name = {"NameContains": "fails-", "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 3}
    found = jobs.sagemaker.list_training_jobs(StatusEquals="Failed", **by_name)
    names = [item["TrainingJobName"] for item in found["TrainingJobSummaries"]]
    assert names == ["fails-arguments", "fails-no-code", "fails-own-failure"]
    rest = jobs.sagemaker.list_training_jobs(NextToken=found["NextToken"], **by_name)
    names = [item["TrainingJobName"] for item in rest["TrainingJobSummaries"]]
    assert names == ["fails-raises", "fails-syntax"]
    assert "NextToken" not in rest
    later = jobs.sagemaker.list_training_jobs(CreationTimeAfter=datetime(2100, 1, 1, tzinfo=UTC))
    assert later["TrainingJobSummaries"] == []


def test_a_running_jobs_profiler_can_be_updated(jobs: JobRunner, runtime: RuntimeProcess) -> None:
    jobs.create("updated", UNTIL_STOPPED)
    jobs.wait_for_line("updated", "running")
    profiler = {"S3OutputPath": f"s3://{jobs.bucket}/debug", "ProfilingIntervalInMilliseconds": 1000}
    jobs.sagemaker.update_training_job(TrainingJobName="updated", ProfilerConfig=profiler)
    assert jobs.describe("updated")["ProfilerConfig"]["ProfilingIntervalInMilliseconds"] == 1000
    config = runtime.root / "training-job" / "updated" / "opt_ml" / "input" / "config" / "profilerconfig.json"
    assert json.loads(config.read_text())["ProfilingIntervalInMilliseconds"] == 1000
    with pytest.raises(ClientError, match="ResourceInUse"):
        jobs.sagemaker.delete_training_job(TrainingJobName="updated")
    jobs.sagemaker.stop_training_job(TrainingJobName="updated")
    jobs.wait("updated")
    with pytest.raises(ClientError, match="ValidationException"):
        jobs.sagemaker.update_training_job(TrainingJobName="updated", ProfilerConfig=profiler)


def test_the_name_of_a_deleted_job_can_be_used_again(jobs: JobRunner, runtime: RuntimeProcess) -> None:
    metric = {
        "TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=(\S+)"}],
    }
    for value in ("1", "2"):
        jobs.create("deleted", f"print('loss={value}')", AlgorithmSpecification=metric)
        final = jobs.wait("deleted")["FinalMetricDataList"]
        assert [item["Value"] for item in final] == [float(value)]
        jobs.sagemaker.delete_training_job(TrainingJobName="deleted")
        with pytest.raises(ClientError, match="Requested resource not found"):
            jobs.describe("deleted")
        assert not Path(runtime.root, "training-job", "deleted").exists()


def test_what_a_machine_has_no_counterpart_for_is_accepted_and_named_in_the_log(jobs: JobRunner) -> None:
    network = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    jobs.create(
        "in-a-network",
        "print('trained')",
        VpcConfig=network,
        EnableNetworkIsolation=True,
        OutputDataConfig={"S3OutputPath": f"s3://{jobs.bucket}/out", "KmsKeyId": "alias/outputs"},
    )
    assert jobs.wait("in-a-network")["VpcConfig"] == network
    log = jobs.log("in-a-network")
    assert log[0] == (
        "local SageMaker: EnableNetworkIsolation, KmsKeyId, VpcConfig accepted, "
        "without effect on this machine"
    )
    assert "trained" in log
