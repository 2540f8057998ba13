"""Runs of the pipeline with one fault each, and the verdict: `make chaos N=20 SEED=1`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx
from rich.console import Console

from demo import services
from demo.airflow_api import FINISHED_RUN, TaskState
from demo.chaos.checks import (
    Expected,
    Findings,
    check_decisions,
    check_jobs,
    check_objects,
    check_tasks,
    objects,
    run_jobs,
    run_keys,
)
from demo.chaos.faults import DISK, Fault, Faults, draw, small_disk
from demo.chaos.network import Network
from demo.drills import data
from demo.drills.traffic import Tally
from demo.drills.world import CHANGES, RETRAINING, Run, World, opened, traffic
from demo.outcome import say
from demo.settings import DemoError, Settings

T = TypeVar("T")
RUN_SECONDS = 900.0
POLL_SECONDS = 0.3
API_SECONDS = 120.0  # that the API server may be away
RETRY_SECONDS = 1.0
CONF: Mapping[str, Any] = {"force": True}

# The smallest training that is one: a small network, one trial, one epoch. Every model passes the gate, so
# that every run ends with a deployment; how well they classify is not what is looked at here.
SMALL: Mapping[str, Any] = {
    **CHANGES,
    "model": {"arch": "squeezenet1_1", "trainable": "all", "image_size": 32},
    "hyperparameters": {"lr": 0.01, "batch-size": 32, "epochs": 1},
    "tuning": {
        "max_jobs": 1,
        "max_parallel_jobs": 1,
        "search_space": {"lr": {"type": "continuous", "min": 0.005, "max": 0.01}},
    },
    "evaluation": {"latency_images": 0, "bootstrap_samples": 100},
    "gate": {"min_accuracy": 0.0, "min_improvement": -1.0, "max_class_regression": 1.0},
    "deployment": {**CHANGES["deployment"], "bake_seconds": 5},
    "verify": {"images": 10},
}


def run_chaos(settings: Settings, out: Console, runs: int, seed: int) -> bool:
    """N runs; the last line has what was found. True where nothing was."""
    total = Findings()
    failed = 0
    with ExitStack() as stack:
        services.stop(settings)
        disk = stack.enter_context(small_disk(settings.sagemaker_root))
        network = stack.enter_context(Network())
        if disk is None:
            say(
                out,
                "No full disk: mounting one takes root's rights. The other faults are drawn.",
            )
        say(out, "Starting an Airflow and a local SageMaker, and a run without a fault to compare with")
        world = stack.enter_context(opened(settings, SMALL, network.url, lambda port: lead(network, port)))
        faults = Faults(settings, network, disk)
        expected, lengths = reference(world, out)
        client = stack.enter_context(traffic(world, patient=True))
        chosen = draw(random.Random(seed), lengths, faults.targets)  # noqa: S311 - to be repeated
        for number in range(1, runs + 1):
            fault = next(chosen)
            say(out, f"{number}/{runs} {fault}")
            started = time.monotonic()
            findings = one_run(world, faults, fault, expected, client.take)
            for line in findings.lines():
                say(out, f"    {line}", style="red")
            say(out, f"    {'✗' if any(findings.lines()) else '✓'} {time.monotonic() - started:.0f} s")
            failed += bool(findings.failed)
            add(total, findings)
    counts = (total.duplicates, total.orphans, total.lost, total.wrong)
    duplicates, left, lost, wrong = map(len, counts)
    say(
        out,
        f"{runs} runs, {duplicates} duplicate jobs, {left} orphans, {lost} lost objects, "
        f"{wrong} wrong decisions, {failed} failed runs",
    )
    return not any(total.lines())


def lead(network: Network, port: int) -> None:
    network.target = port


def add(total: Findings, findings: Findings) -> None:
    for kind, found in findings.__dict__.items():
        getattr(total, kind).extend(found)


def reference(world: World, out: Console) -> tuple[Expected, dict[str, float]]:
    """What a run without a fault comes to, and the seconds of its tasks. Raises DemoError where it fails."""
    started = time.monotonic()
    world.put_dataset(data.clean)
    run = watch(world, patiently(lambda: world.api.trigger(RETRAINING, CONF)), lambda _tasks: None)
    if run.state != "success":
        raise DemoError(f"The run without a fault has failed: {run.errors()}")
    name = run.result("plan")["run"]["name"]
    lengths = {task.task_id: task.seconds or 0.0 for task in run.tasks.values() if task.state == "success"}
    tasks = {task.task_id: task.state for task in run.tasks.values()}
    found = ", ".join(f"{job.kind} {job.status}" for job in run_jobs(world.aws, name))
    times = ", ".join(f"{task} {seconds:.0f}" for task, seconds in lengths.items() if seconds >= 1)
    say(out, f"    {time.monotonic() - started:.0f} s: {found}; seconds by task: {times}")
    return Expected(tasks, run_keys(objects(world.aws), name)), lengths


def one_run(
    world: World, faults: Faults, fault: Fault, expected: Expected, take: Callable[[], Tally]
) -> Findings:
    """A run with a fault, and what is wrong after it."""
    findings = Findings()
    waits: list[Callable[[], None]] = []
    seen: dict[str, float] = {}

    def strike(tasks: Mapping[str, TaskState]) -> None:
        task = tasks[fault.task]
        if waits or task.state in {"waiting", "scheduled", "queued"}:
            return
        began = seen.setdefault(task.task_id, time.monotonic())
        if time.monotonic() - began >= fault.after or task.state in {"success", "failed", "skipped"}:
            waits.append(faults.cause(fault))

    run_id = patiently(lambda: world.api.trigger(RETRAINING, CONF))
    try:
        run = watch(world, run_id, strike)
        for wait in waits:
            wait()
        if run.state != "success" and fault.target == DISK:
            run = clear_after_full_disk(world, run, findings)
        if not waits:
            findings.failed.append(f"{fault} did not come about")
        judge(world, run, expected, findings)
    except (TimeoutError, DemoError) as error:
        findings.failed.append(str(error))
    tally = take()
    if tally.failed or not tally.requests:
        findings.failed.append(f"{tally.failed} of {tally.requests} requests failed: {tally.reasons}")
    return findings


def judge(world: World, run: Run, expected: Expected, findings: Findings) -> None:
    """Everything that has to hold after a run."""
    services.wait_until_ready(world.settings, "sagemaker")
    services.wait_until_ready(world.settings, "airflow")
    check_tasks(run, expected, findings)
    plan = run.result("plan")
    if plan is None:
        findings.failed.append("plan has no result")
        return
    name = plan["run"]["name"]
    check_jobs(world, name, findings)
    check_objects(world, name, expected, findings)
    check_decisions(world, run, findings)


def clear_after_full_disk(world: World, run: Run, findings: Findings) -> Run:
    """A run may fail where no space is left: it says so, and goes on once cleared."""
    errors = " | ".join(run.errors())
    if "space" not in errors:
        findings.failed.append(f"the errors do not speak of space: {errors[:2000]}")
    world.api.clear_failed(run.dag_id, run.run_id)
    return watch(world, run.run_id, lambda _tasks: None)


def watch(world: World, run_id: str, act: Callable[[Mapping[str, TaskState]], None]) -> Run:
    """Wait for a run's end, telling `act` of the tasks meanwhile. Raises TimeoutError."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        state = patiently(lambda: world.api.run(RETRAINING, run_id).state)
        found = patiently(lambda: world.api.tasks(RETRAINING, run_id))
        tasks = {task.task_id: task for task in found}
        if tasks:
            act(tasks)
        if state in FINISHED_RUN:
            return Run(world.api, RETRAINING, run_id, state, tasks)
        time.sleep(POLL_SECONDS)
    states = ", ".join(f"{name} {task.state}" for name, task in tasks.items())
    raise TimeoutError(f"{run_id} did not end within {RUN_SECONDS:.0f} s: {states}")


def patiently(ask: Callable[[], T]) -> T:
    """Ask Airflow's API again as long as nobody listens, or it fails. Raises the last error."""
    deadline = time.monotonic() + API_SECONDS
    while True:
        try:
            return ask()
        except (httpx.TransportError, DemoError):
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
