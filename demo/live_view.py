"""Shows a run while it goes on: tables that are drawn over on a terminal, one line a change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.airflow_api import FINISHED_RUN, TaskState
from demo.observation import Job, Tuning, View

POLL_SECONDS = 1.0
SEARCHED = ("lr", "momentum", "batch-size", "epochs")
COLOURS = {
    "success": "green",
    "Completed": "green",
    "failed": "red",
    "Failed": "red",
    "upstream_failed": "red",
    "running": "cyan",
    "InProgress": "cyan",
    "awaiting_input": "magenta",
    "deferred": "magenta",
    "queued": "yellow",
    "up_for_retry": "yellow",
    "Stopped": "yellow",
}


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def coloured(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, "dim"))


def short(text: str) -> str:
    """A hyperparameter as a person reads it."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def task_table(tasks: tuple[TaskState, ...]) -> Table:
    table = Table(title="Tasks", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("task", "state", "time"):
        table.add_column(heading, justify="right" if heading == "time" else "left")
    for task in tasks:
        retried = f" (attempt {task.attempts})" if task.attempts > 1 else ""
        table.add_row(task.task_id, coloured(task.state) + retried, seconds(task.seconds))
    return table


def trial_table(tuning: Tuning) -> Table:
    table = Table(title=f"Tuning {tuning.name}", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("trial", "state", *SEARCHED, "epoch", "objective", "time"):
        table.add_column(heading, justify="left" if heading in {"trial", "state"} else "right")
    for trial in tuning.trials:
        latest = trial.epochs[-1] if trial.epochs else {}
        best = " ★" if trial.name == tuning.best_trial else ""
        table.add_row(
            trial.name.removeprefix(f"{tuning.name}-"),
            coloured(trial.status),
            *(short(trial.hyperparameters.get(name, "")) for name in SEARCHED),
            number(latest.get("epoch"), 0),
            number(trial.objective if trial.objective is not None else latest.get("valid_accuracy")) + best,
            seconds(trial.seconds),
        )
    return table


def training_table(job: Job) -> Table:
    title = f"Training {job.name}: {job.stage}, {job.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    columns = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")
    for heading in columns:
        table.add_column(heading.replace("_", " "), justify="right")
    for epoch in job.epochs:
        values = (number(epoch.get(name), 0 if name == "epoch" else 3) for name in columns)
        table.add_row(*values)
    return table


def render(view: View, elapsed: float) -> RenderableType:
    head = Text.assemble(
        ("Run ", "bold"), view.run.run_id, "  ", coloured(view.run.state), f"  {elapsed:.0f} s"
    )
    parts: list[RenderableType] = [head, "", task_table(view.tasks)]
    if view.tuning:
        parts += ["", trial_table(view.tuning)]
    if view.training:
        parts += ["", training_table(view.training)]
    return Group(*parts)


def epoch_lines(title: str, before: Job | None, job: Job) -> Iterator[str]:
    seen = len(before.epochs) if before else 0
    for epoch in job.epochs[seen:]:
        yield f"{title} " + " ".join(f"{name}={value:g}" for name, value in epoch.items())


def job_lines(title: str, before: Job | None, job: Job) -> Iterator[str]:
    """What is new about a job: its start, its epochs, its end."""
    if before is None:
        searched = {
            name: short(job.hyperparameters[name]) for name in SEARCHED if name in job.hyperparameters
        }
        yield f"{title} started: " + ", ".join(f"{name} {value}" for name, value in searched.items())
    yield from epoch_lines(title, before, job)
    if job.ended and not (before and before.ended):
        objective = "" if job.objective is None else f", objective {job.objective:.4f}"
        yield f"{title} {job.status} after {job.seconds:.1f} s{objective}" + (
            f": {job.failure}" if job.failure else ""
        )


def changes(before: View | None, view: View) -> Iterator[str]:
    """One line for everything that is new since the last poll."""
    states: Mapping[str, str] = {task.task_id: task.state for task in before.tasks} if before else {}
    for task in view.tasks:
        if task.state != states.get(task.task_id, "waiting"):
            yield f"task {task.task_id}: {task.state}" + (
                f" after {task.seconds:.1f} s" if task.ended else ""
            )
    if view.tuning:
        known = {trial.name: trial for trial in before.tuning.trials} if before and before.tuning else {}
        for trial in view.tuning.trials:
            title = f"trial {trial.name.removeprefix(f'{view.tuning.name}-')}"
            yield from job_lines(title, known.get(trial.name), trial)
    if view.training:
        yield from job_lines(
            f"training {view.training.name}", before.training if before else None, view.training
        )


def watch(poll: Callable[[], View], console: Console) -> View:
    """Show the run until it has ended; its last view."""
    return watch_live(poll, console) if console.is_terminal else watch_plain(poll, console)


def watch_live(poll: Callable[[], View], console: Console) -> View:
    started = time.monotonic()
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            view = poll()
            live.update(render(view, time.monotonic() - started), refresh=True)
            if view.run.state in FINISHED_RUN:
                return view
            time.sleep(POLL_SECONDS)


def watch_plain(poll: Callable[[], View], console: Console) -> View:
    started, before = time.monotonic(), None
    while True:
        view = poll()
        for line in changes(before, view):
            console.print(
                f"{time.monotonic() - started:6.1f} s  {line}", markup=False, highlight=False, soft_wrap=True
            )
        if view.run.state in FINISHED_RUN:
            return view
        before = view
        time.sleep(POLL_SECONDS)
