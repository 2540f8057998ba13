"""Shows a run while it goes on: tables that are drawn over on a terminal, one line a change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.airflow_api import FINISHED_RUN, TaskState
from demo.observation import Job, Tuning, View
from demo.settings import DemoError

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


ENDED = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})
PATIENCE_SECONDS = 120.0
_AROUND_ROWS = 4  # an empty line, the title, the heading, the caption


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


def task_lines(tasks: tuple[TaskState, ...]) -> list[RenderableType]:
    """Ended tasks in a line, one line for each that is under way, the others as a number."""
    ended = [task for task in tasks if task.ended and task.state in ENDED]
    active = [task for task in tasks if task not in ended and task.state not in {"waiting", "scheduled"}]
    waiting = len(tasks) - len(ended) - len(active)
    lines: list[RenderableType] = []
    if ended:
        words = Text()
        for task in ended:
            tries = f" ({task.attempts} attempts)" if task.attempts > 1 else ""
            words.append(f"{task.task_id}{tries} ", style=COLOURS.get(task.state, "dim"))
        lines.append(words)
    for task in active:
        retried = f" (attempt {task.attempts})" if task.attempts > 1 else ""
        lines.append(
            Text.assemble(
                ("▸ ", "bold"),
                f"{task.task_id}  ",
                coloured(task.state),
                retried,
                "  ",
                seconds(task.seconds),
            )
        )
    if waiting:
        lines.append(Text(f"{waiting} tasks wait", style="dim"))
    return lines


def trial_table(tuning: Tuning, rows: int) -> Table:
    """The trials that run, the best one, and the newest of the others, as far as there are rows."""
    shown = sorted(
        tuning.trials,
        key=lambda trial: (
            trial.ended is not None,
            trial.name != tuning.best_trial,
            -trial.created.timestamp(),
        ),
    )[: max(1, rows)]
    table = Table(title=f"Tuning {tuning.name}", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("trial", "state", *SEARCHED, "epoch", "objective", "time"):
        table.add_column(heading, justify="left" if heading in {"trial", "state"} else "right", no_wrap=True)
    for trial in sorted(shown, key=lambda trial: trial.name):
        latest = trial.epochs[-1] if trial.epochs else {}
        best = " ★" if trial.name == tuning.best_trial else ""
        table.add_row(
            trial.name.removeprefix(f"{tuning.name}-").partition("-")[0],
            coloured(trial.status),
            *(short(trial.hyperparameters.get(name, "")) for name in SEARCHED),
            number(latest.get("epoch"), 0),
            number(trial.objective if trial.objective is not None else latest.get("valid_accuracy")) + best,
            seconds(trial.seconds),
        )
    if hidden := len(tuning.trials) - len(shown):
        table.caption = f"{hidden} more that have ended"
    return table


def training_table(job: Job, rows: int) -> Table:
    """The newest epochs, as far as there are rows."""
    title = f"Training {job.name}: {job.stage}, {job.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    columns = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")
    for heading in columns:
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    for epoch in job.epochs[-max(1, rows) :]:
        values = (number(epoch.get(name), 0 if name == "epoch" else 3) for name in columns)
        table.add_row(*values)
    return table


def render(view: View, elapsed: float, height: int = 50) -> RenderableType:
    """The run in at most so many lines, if there are 14 or more."""
    head = Text.assemble(
        ("Run ", "bold"), view.run.run_id, "  ", coloured(view.run.state), f"  {elapsed:.0f} s"
    )
    tasks = task_lines(view.tasks)
    room = height - len(tasks) - 3  # the head, and a line for ended tasks that goes over two
    part = room // 2 if view.tuning and view.training else room
    parts: list[RenderableType] = [head, *tasks]
    if view.tuning:
        parts += ["", trial_table(view.tuning, part - _AROUND_ROWS)]
    if view.training:
        parts += ["", training_table(view.training, part - _AROUND_ROWS)]
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


def patient(poll: Callable[[], View]) -> Callable[[], View | None]:
    """A poll that gives None where there is no answer; after PATIENCE_SECONDS of that, the error."""
    answered = time.monotonic()

    def look() -> View | None:
        nonlocal answered
        try:
            view = poll()
        except (httpx.TransportError, BotoCoreError, ClientError, DemoError):
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            return None
        answered = time.monotonic()
        return view

    return look


def watch_live(poll: Callable[[], View], console: Console) -> View:
    started, look = time.monotonic(), patient(poll)
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            if view := look():
                live.update(render(view, time.monotonic() - started, console.height), refresh=True)
                if view.run.state in FINISHED_RUN:
                    return view
            time.sleep(POLL_SECONDS)


def watch_plain(poll: Callable[[], View], console: Console) -> View:
    started, look, before = time.monotonic(), patient(poll), None
    while True:
        if view := look():
            for line in changes(before, view):
                console.print(
                    f"{time.monotonic() - started:6.1f} s  {line}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            if view.run.state in FINISHED_RUN:
                return view
            before = view
        time.sleep(POLL_SECONDS)
