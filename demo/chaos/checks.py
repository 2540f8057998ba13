"""What has to hold after a run, whatever happened during it."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.aws import Aws
from demo.drills.world import PIPELINE, Run, World
from demo.processes import JOB_VARIABLE, jobs

SETTLE_SECONDS = 60.0  # for what is being stopped to end
POLL_SECONDS = 1.0
GOING = frozenset({"InProgress", "Stopping"})
DIGEST = re.compile(r"(?<=/)[0-9a-f]{8}(?=/)")  # of a request, where a task may make several
TRIAL = re.compile(r"-\d{3}-[0-9a-f]{8}")


@dataclass
class Findings:
    """What was found wrong, a line for each, by kind."""

    duplicates: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        for kind, found in self.__dict__.items():
            yield from (f"{kind}: {line}" for line in found)


@dataclass(frozen=True)
class Expected:
    """A run without a fault: what its tasks came to, and what it left in S3, without its own name."""

    tasks: Mapping[str, str]
    keys: frozenset[str]


@dataclass(frozen=True)
class Job:
    kind: str
    name: str
    status: str


def run_jobs(aws: Aws, name: str) -> list[Job]:
    """All jobs of a run, trials as a kind of their own; `name` is what the run's names begin with."""
    sagemaker = aws.sagemaker
    found = [
        Job("tuning", job["HyperParameterTuningJobName"], job["HyperParameterTuningJobStatus"])
        for page in sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(NameContains=name)
        for job in page["HyperParameterTuningJobSummaries"]
    ]
    for page in sagemaker.get_paginator("list_training_jobs").paginate(NameContains=name):
        for training in page["TrainingJobSummaries"]:
            job_name = training["TrainingJobName"]
            kind = "trial" if TRIAL.search(job_name) else "training"
            found.append(Job(kind, job_name, training["TrainingJobStatus"]))
    for processing in sagemaker.get_paginator("list_processing_jobs").paginate(NameContains=name):
        found += [
            Job("processing", job["ProcessingJobName"], job["ProcessingJobStatus"])
            for job in processing["ProcessingJobSummaries"]
        ]
    return found


def check_jobs(world: World, name: str, findings: Findings) -> None:
    """Exactly one job of each kind has completed, and none is left."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(job.status in GOING for job in run_jobs(world.aws, name)) or orphans(world):
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    found = run_jobs(world.aws, name)
    findings.orphans += [f"{job.name} is {job.status}" for job in found if job.status in GOING]
    findings.orphans += orphans(world)
    for kind in ("tuning", "training", "processing"):
        completed = [job.name for job in found if job.kind == kind and job.status == "Completed"]
        findings.duplicates += [f"{name} is a second {kind} job" for name in completed[1:]]
        if not completed:
            others = ", ".join(f"{job.name} {job.status}" for job in found if job.kind == kind)
            findings.failed.append(f"no {kind} job has completed: {others or 'none'}")


def orphans(world: World) -> list[str]:
    """Processes of jobs, none of which runs between two runs; the model servers go on."""
    root = world.settings.sagemaker_root.resolve()
    found = []
    for process in jobs(root):
        try:
            folder = process.environ()[JOB_VARIABLE].removeprefix(f"{root}/")
        except Exception:  # noqa: BLE001, S112 - it has ended
            continue
        if not folder.startswith("endpoint/"):
            found.append(f"process {process.pid} of {folder}")
    return found


def objects(aws: Aws) -> dict[str, str]:
    """ETags by key, of all objects of the bucket."""
    pages = aws.s3.get_paginator("list_objects_v2").paginate(Bucket=aws.bucket)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", ())}


def run_keys(keys: Mapping[str, str], name: str) -> frozenset[str]:
    """The keys of a run, without its name, its attempts, its trials and its requests' digests.

    Nor the charts: which ones there are depends on the models.
    """
    own = re.compile(re.escape(name) + r"(-r\d)?")
    run = (key for key in keys if name in key and not TRIAL.search(key) and not key.endswith(".png"))
    return frozenset(DIGEST.sub("DIGEST", own.sub("RUN", key)) for key in run)


def check_objects(world: World, name: str, expected: Expected, findings: Findings) -> None:
    """Every object can be read and is what its ETag says; the run left what a run leaves."""
    found = objects(world.aws)
    for key, tag in found.items():
        if problem := damage(world.aws, key, tag):
            findings.lost.append(f"{key}: {problem}")
    findings.lost += [f"{key} is missing" for key in sorted(expected.keys - run_keys(found, name))]


def damage(aws: Aws, key: str, tag: str) -> str | None:
    """Why an object is not what it was, None if it is. An ETag is the MD5, of the parts' MD5s for several."""
    try:
        content = aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read()
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        _, _, parts = tag.strip('"').partition("-")
        if parts:
            digest = f"{multipart(aws, key, int(parts))}-{parts}"
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return None if digest == tag.strip('"') else f"its MD5 is {digest}, its ETag {tag}"


def multipart(aws: Aws, key: str, parts: int) -> str:
    digests = [
        hashlib.md5(
            aws.s3.get_object(Bucket=aws.bucket, Key=key, PartNumber=number)["Body"].read(),
            usedforsecurity=False,
        ).digest()
        for number in range(1, parts + 1)
    ]
    return hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()


def check_decisions(world: World, run: Run, findings: Findings) -> None:
    """The model passed the gate, is in service and is not rejected; nor is any other."""
    rejected = world.aws.sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=PIPELINE, ModelApprovalStatus="Rejected"
    )
    for page in rejected:
        for package in page["ModelPackageSummaryList"]:
            findings.wrong.append(f"{package['ModelPackageArn']} is rejected")
    gate: Any = run.result("gate") or {}
    if not gate.get("approved"):
        findings.wrong.append(f"the gate says {gate}")
    wanted, serving = (run.result("deploy") or {}).get("config"), world.configuration()
    if wanted is None or wanted != serving:
        findings.wrong.append(f"{serving} is in service, not {wanted}")


def check_tasks(run: Run, expected: Expected, findings: Findings) -> None:
    """The run ended as it would have without the fault."""
    if run.state != "success":
        findings.failed.append(f"{run.run_id} is {run.state}: {' | '.join(run.errors())[:2000]}")
    for name, state in expected.tasks.items():
        if (now := run.task(name)) != state:
            findings.failed.append(f"{name} is {now}, not {state}")
