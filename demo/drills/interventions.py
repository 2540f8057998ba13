"""What a person does to a run whose training is deferred: `make interventions`.

After each, the job has to run or to be stopped as the person means it, and the run's state has to be right.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.console import Console

from demo import processes, services
from demo.airflow_api import FINISHED_RUN
from demo.chaos.chaos import SMALL, patiently
from demo.drills import data
from demo.drills.drills import Drill, DrillError, attempt, expect, say_result
from demo.drills.world import PIPELINE, RETRAINING, Run, World, opened
from demo.outcome import say
from demo.settings import Settings

SECONDS = 300.0
POLL_SECONDS = 0.5
TRAIN = "train"
EPOCH = re.compile(r"epoch=(\d+)\b")
SHORT: Mapping[str, Any] = {"force": True, "skip_tuning": True}
LONG: Mapping[str, Any] = {**SHORT, "epochs_min": 500, "epochs_max": 500}  # far longer than an intervention


def first_model(world: World) -> None:
    world.put_dataset(data.clean)
    run = world.run(RETRAINING, SHORT)
    expect(run.state == "success", "the run succeeds", run)


def clear(world: World) -> None:
    run_id, job = in_training(world)
    world.api.clear_task(RETRAINING, run_id, TRAIN)
    stopped(world, job)
    running(world, f"{job}-r2")
    followed(world, run_id)
    world.api.end_run(RETRAINING, run_id)
    stopped(world, f"{job}-r2")
    expect_failed(world, run_id)


def mark_task(world: World, state: str) -> None:
    """Whatever the state, what needs the task's result fails, for there is none."""
    run_id, job = in_training(world)
    world.api.mark_task(RETRAINING, run_id, TRAIN, state)
    stopped(world, job)
    expect_failed(world, run_id)


def mark_run_failed(world: World) -> None:
    run_id, job = in_training(world)
    world.api.end_run(RETRAINING, run_id)
    stopped(world, job)
    expect_failed(world, run_id)


def delete_run(world: World) -> None:
    """Airflow deletes no run that is going on, so it is marked first."""
    run_id, job = in_training(world)
    world.api.end_run(RETRAINING, run_id)
    end_of(world, run_id)
    world.api.delete_run(RETRAINING, run_id)
    stopped(world, job)


def kill_triggerer(world: World) -> None:
    """The one that is started again goes on, where the killed one stopped."""
    run_id, job = in_training(world)
    until(lambda: len(epochs(world, run_id)) > 2, "epochs are in the task's log")
    home = services.folder(world.settings)
    killed = processes.members(home, "triggerer", None)
    processes.kill(killed)
    seen = len(epochs(world, run_id))
    until(lambda: len(epochs(world, run_id)) > seen + 2, "the next triggerer shows epochs")
    running(world, job)
    lines = epochs(world, run_id)
    repeated, numbers = len(lines) - len(set(lines)), sorted(set(lines))
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DrillError(f"Epochs are missing in the log: {numbers}")
    if repeated > len(numbers) / 2:
        raise DrillError(f"{repeated} of {len(lines)} epochs are in the log twice")
    world.api.end_run(RETRAINING, run_id)
    stopped(world, job)
    expect_failed(world, run_id)


def end_run_without_triggerer(world: World) -> None:
    """Nobody is there to stop the job; the next run does."""
    run_id, job = in_training(world)
    home = services.folder(world.settings)
    frozen = processes.members(home, "triggerer", None)
    processes.send(frozen, signal.SIGSTOP)
    try:
        world.api.end_run(RETRAINING, run_id)
        expect_failed(world, run_id)
    finally:
        processes.kill(frozen)
    running(world, job)
    run = world.run(RETRAINING, SHORT)
    expect(run.state == "success", "the next run succeeds", run)
    stopped(world, job)


INTERVENTIONS = (
    Drill("a first model → live", first_model),
    Drill("training cleared → its job stops, another attempt begins", clear),
    Drill("training marked failed → its job stops, the run fails", partial(mark_task, state="failed")),
    Drill(
        "training marked successful → its job stops, the run fails for want of a model",
        partial(mark_task, state="success"),
    ),
    Drill(
        "training marked skipped → its job stops, the run fails for want of a model",
        partial(mark_task, state="skipped"),
    ),
    Drill("run marked failed → its job stops, the run fails", mark_run_failed),
    Drill("run marked failed and deleted → its job stops", delete_run),
    Drill("triggerer killed → the next one goes on", kill_triggerer),
    Drill(
        "run marked failed while no triggerer runs → the next run stops the job", end_run_without_triggerer
    ),
)

DEPLOYING = {first_model, end_run_without_triggerer}  # after the others, the same model is in service


def run_interventions(settings: Settings, out: Console) -> bool:
    """All interventions, with a line for each; whether none failed."""
    failed = 0
    say(out, "Starting an Airflow and a local SageMaker", style="bold")
    with opened(settings, SMALL) as world:
        for one in INTERVENTIONS:
            started, before = time.monotonic(), world.configuration()
            problem = attempt(one, world)
            after = world.configuration()
            if problem is None and one.act not in DEPLOYING and after != before:
                problem = f"{after} is in service, not {before}"
            failed += problem is not None
            say_result(out, f"{one.name}  ({time.monotonic() - started:.0f} s)", problem)
            if problem:
                end_all(world)
    say(out, f"{len(INTERVENTIONS)} interventions, {failed} failed")
    return failed == 0


def in_training(world: World) -> tuple[str, str]:
    """A run whose training is deferred, and followed by the triggerer: the run's id, and the job's name."""
    run_id = world.api.trigger(RETRAINING, LONG)
    followed(world, run_id)
    plan = world.api.result(RETRAINING, run_id, "plan")
    return run_id, plan["run"]["name"]


def followed(world: World, run_id: str) -> None:
    """Until the triggerer follows the training. What a person does in the second before that is left to the
    next run, which stops the job.
    """
    until(lambda: task_state(world, run_id, TRAIN) == "deferred", "training is deferred")
    until(lambda: len(epochs(world, run_id)) > 0, "an epoch is in the task's log")


def task_state(world: World, run_id: str, task: str) -> str | None:
    states = {one.task_id: one.state for one in patiently(lambda: world.api.tasks(RETRAINING, run_id))}
    if states.get("plan") in {"failed", "upstream_failed"}:
        raise DrillError(f"{run_id} did not come to {task}: {states}")
    return states.get(task)


def epochs(world: World, run_id: str) -> list[int]:
    """The epochs in the log of the training's task, as often as they are there."""
    [task] = [t for t in patiently(lambda: world.api.tasks(RETRAINING, run_id)) if t.task_id == TRAIN]
    lines = patiently(lambda: world.api.log(RETRAINING, run_id, task))
    found = (EPOCH.match(str(line.get("event", ""))) for line in lines)
    return [int(match[1]) for match in found if match]


def status(world: World, job: str) -> str:
    try:
        return world.aws.sagemaker.describe_training_job(TrainingJobName=job)["TrainingJobStatus"]
    except world.aws.sagemaker.exceptions.ClientError:
        return "missing"


def stopped(world: World, job: str) -> None:
    until(lambda: status(world, job) == "Stopped", f"the training job {job} is stopped")


def running(world: World, job: str) -> None:
    until(lambda: status(world, job) == "InProgress", f"the training job {job} is running")


def end_of(world: World, run_id: str) -> str:
    """The state in which the run ends."""
    until(lambda: run_state(world, run_id) in FINISHED_RUN, f"{run_id} ends")
    return run_state(world, run_id)


def run_state(world: World, run_id: str) -> str:
    return patiently(lambda: world.api.run(RETRAINING, run_id)).state


def expect_failed(world: World, run_id: str) -> None:
    """The run ends as failed, with a page that says so."""
    state = end_of(world, run_id)
    tasks = {task.task_id: task for task in world.api.tasks(RETRAINING, run_id)}
    run = Run(world.api, RETRAINING, run_id, state, tasks)
    expect(run.state == "failed", "the run fails", run)
    report = run.result("report")
    expect(report and report["outcome"]["verdict"] in {"failed", "unfinished"}, "its page says so", run)
    expect(run.task("register") != "success", "no model is registered", run)


def until(holds: Callable[[], bool], what: str) -> None:
    """Raises DrillError where it does not come about."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise DrillError(f"Expected within {SECONDS:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


def end_all(world: World) -> None:
    """Leave nothing of a failed intervention to the next one."""
    for run_id in world.api.active_runs(RETRAINING):
        world.api.end_run(RETRAINING, run_id)
    jobs = world.aws.sagemaker.list_training_jobs(NameContains=PIPELINE, StatusEquals="InProgress")
    for job in jobs["TrainingJobSummaries"]:
        world.aws.sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])
    until(lambda: not world.api.active_runs(RETRAINING), "all runs have ended")
