"""The drills, in the order in which each finds the model in service that it needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from demo.drills import data
from demo.drills.traffic import Tally
from demo.drills.world import CANARY_PERCENT, Run, World, opened, recorded_calls, traffic
from demo.outcome import say
from demo.recorded_calls import compare
from demo.settings import DemoError, Settings


class DrillError(Exception):
    """Something else happened than the drill expects."""


@dataclass(frozen=True)
class Drill:
    """`may_fail` is the share of the client's requests that may fail while the drill goes on."""

    name: str
    act: Callable[[World], None]
    may_fail: float = 0.0


def first_model(world: World) -> None:
    run = world.retrain(data.confused)
    expect_live(world, run)


def unchanged_data(world: World) -> None:
    before, jobs = world.configuration(), world.jobs()
    run = world.retrain(data.confused)
    expect(run.state == "success", "the run succeeds", run)
    expect(run.task("plan") == "skipped" and run.task("tune") == "skipped", "plan is skipped", run)
    expect_stays(world, before, run)
    expect(world.jobs() == jobs, "no job was started", run)


def damaged_data(world: World) -> None:
    expect_stopped_before_tuning(world, data.damaged, "cannot be read")


def leaking_data(world: World) -> None:
    expect_stopped_before_tuning(world, data.leaking, "also in another split")


def ruined_class(world: World) -> None:
    before = world.configuration()
    run = world.retrain(data.ruined_class)
    expect_kept_out(world, run, before)
    failed = [check["name"] for check in run.result("gate")["checks"] if not check["passed"]]
    expect(failed == ["class_regression"], f"the recall limit of classes alone blocks, not {failed}", run)


def worse_challenger(world: World) -> None:
    before = world.configuration()
    run = world.retrain(data.mislabelled)
    expect_kept_out(world, run, before)


def denied_approval(world: World) -> None:
    before = world.configuration()
    run = world.retrain(response="Reject")
    expect(run.state == "success" and run.task("approve") == "success", "the run asks for approval", run)
    expect(run.result("gate")["approved"], "the gate lets the model pass", run)
    expect(not run.result("approve")["approved"], "the approval was denied", run)
    expect(run.task("deploy") == "skipped", "nothing is deployed", run)
    expect_stays(world, before, run)


def better_challenger(world: World) -> None:
    run = world.retrain(skip_tuning=False)
    expect(run.task("gate") == "success", "the gate decides", run)
    improvement = run.result("gate")["figures"]["improvement"]
    expect(improvement and improvement["lower_bound"] > 0, "the challenger is better", run)
    expect_live(world, run)


def model_that_does_not_load(world: World) -> None:
    expect_rolled_back(world, "fails to load", task="deploy", because="health check")


def slow_model(world: World) -> None:
    # two periods of the alarm in a row have to be slow
    expect_rolled_back(world, "is slow", task="deploy", because="latency", bake_seconds=150)


def model_that_fails_requests(world: World) -> None:
    expect_rolled_back(world, "responds with 5xx", task="deploy", because="5xx")


def wrong_predictions(world: World) -> None:
    expect_rolled_back(world, "predicts wrongly", task="verify", because="differ from the evaluation's")


def manual_rollback(world: World) -> None:
    before = world.configuration()
    run = world.roll_back()
    expect(run.state == "success", "the run succeeds", run)
    after = world.configuration()
    expect(after is not None and after != before, f"another model than {before} is in service", run)


DRILLS = (
    Drill("first model, no champion → live", first_model),
    Drill("unchanged data → skipped", unchanged_data),
    Drill("damaged images → stopped before tuning", damaged_data),
    Drill("test images in training → stopped before tuning", leaking_data),
    Drill("one class ruined → blocked by the recall limit of classes", ruined_class),
    Drill("labels shuffled → champion stays", worse_challenger),
    Drill("approval denied → champion stays", denied_approval),
    Drill("better challenger → live", better_challenger),
    Drill("model fails to load → rolled back", model_that_does_not_load),
    Drill("slow model → alarm, rolled back", slow_model),
    Drill("5xx under traffic → alarm, rolled back", model_that_fails_requests, CANARY_PERCENT / 100),
    Drill("wrong predictions → verify rolls back", wrong_predictions),
    Drill("manual rollback → the previous model", manual_rollback),
)


def run_drills(settings: Settings, out: Console) -> bool:
    """All drills, with a line for each; whether none failed."""
    failed, total = 0, Tally()
    say(out, "Starting an Airflow and a local SageMaker for the drills", style="bold")
    with opened(settings) as world, traffic(world) as client:
        for drill in DRILLS:
            started = time.monotonic()
            problem = attempt(drill, world)
            tally = client.take()
            problem = problem or traffic_problem(drill, tally)
            total.requests += tally.requests
            total.failures += tally.failures
            failed += problem is not None
            seconds = f"{time.monotonic() - started:.0f} s"
            say_result(
                out,
                f"{drill.name}  ({seconds}, {tally.requests} requests, {tally.failed} failed)",
                problem,
            )
    calls = compare(recorded_calls(settings))
    say(out, f"{calls}")
    say(
        out,
        f"{len(DRILLS)} drills, {failed} failed, {total.requests} requests, {total.failed} failed requests",
    )
    return failed == 0 and not calls.forbidden and not calls.uncalled


def say_result(out: Console, text: str, problem: str | None) -> None:
    """A line for what has ended, and one for its problem."""
    mark, style = ("✗", "red") if problem else ("✓", "green")
    say(out, f"  {mark} {text}", style=style)
    if problem:
        say(out, f"    {problem}")


def attempt(drill: Drill, world: World) -> str | None:
    """Why the drill failed, or None."""
    try:
        drill.act(world)
    except (DrillError, DemoError, TimeoutError) as error:
        return str(error)
    return None


def traffic_problem(drill: Drill, tally: Tally) -> str | None:
    """What is wrong with the client's requests, or None."""
    if tally.requests == 0:
        return "no request reached the endpoint"
    if tally.failed > drill.may_fail * tally.requests:
        return f"{tally.failed} of {tally.requests} requests failed: {tally.reasons}"
    return None


def expect(condition: Any, what: str, run: Run) -> None:
    """Raises DrillError, with the run's tasks and errors, unless the condition holds."""
    if condition:
        return
    states = ", ".join(f"{name} {task.state}" for name, task in run.tasks.items())
    raise DrillError(f"Expected: {what}. {run.run_id} is {run.state} ({states}). {' | '.join(run.errors())}")


def expect_live(world: World, run: Run) -> None:
    expect(run.state == "success" and run.task("deploy") == "success", "a model is deployed", run)
    name = run.result("deploy")["config"]
    expect(world.configuration() == name, f"{name} is in service", run)


def expect_stays(world: World, before: str | None, run: Run) -> None:
    now = world.configuration()
    expect(before is not None and now == before, f"{before} stays in service, not {now}", run)


def expect_stopped_before_tuning(world: World, change: data.Change, because: str) -> None:
    before, jobs = world.configuration(), world.jobs()
    run = world.retrain(change, skip_tuning=False)
    expect(run.state == "failed" and run.task("check_dataset") == "failed", "check_dataset fails", run)
    expect(run.task("tune") == "upstream_failed" and world.jobs() == jobs, "no job was started", run)
    expect(any(because in line for line in run.errors()), f"the errors speak of {because!r}", run)
    expect_stays(world, before, run)


def expect_kept_out(world: World, run: Run, before: str | None) -> None:
    expect(run.state == "success" and run.task("deploy") == "skipped", "nothing is deployed", run)
    expect(run.task("gate") == "success", "the gate decides", run)
    expect(not run.result("gate")["approved"], "the gate keeps the model out", run)
    expect_stays(world, before, run)


def expect_rolled_back(world: World, fault: str, *, task: str, because: str, **params: Any) -> None:
    before = world.configuration()
    run = world.retrain(fault=fault, **params)
    expect(run.state == "failed" and run.task(task) == "failed", f"{task} fails", run)
    expect(any(because in line for line in run.errors()), f"the errors speak of {because!r}", run)
    expect_stays(world, before, run)
