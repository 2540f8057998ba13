"""Says on the terminal how a run ended: its errors, or its figures and the endpoint's responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from demo.airflow_api import AirflowApi, TaskState
from demo.observation import View
from demo.prediction import EndpointResponse
from demo.settings import Settings

CLASSES_SHOWN = 3
ERRORS_SHOWN = 3


def say(out: Console, text: str, style: str | None = None) -> None:
    """Print a line as it is: no markup, no colours of rich's own, no wrapping."""
    out.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def error_lines(api: AirflowApi, dag_id: str, view: View, task: TaskState) -> Iterator[str]:
    """The last errors in a task's log: what was logged, and the exceptions with it."""
    lines = api.log(dag_id, view.run.run_id, task)
    for line in [line for line in lines if line.get("level") in {"error", "critical"}][-ERRORS_SHOWN:]:
        yield str(line.get("event", ""))
        for detail in line.get("error_detail") or []:
            yield f"{detail['exc_type']}: {detail['exc_value']}"


def show_failure(out: Console, settings: Settings, api: AirflowApi, dag_id: str, view: View) -> None:
    """The failed tasks' own errors, and where their logs are."""
    logs = settings.airflow_home / "logs" / f"dag_id={dag_id}" / f"run_id={view.run.run_id}"
    for task in view.tasks:
        if task.state == "failed":
            say(out, f"\nTask {task.task_id} failed:", style="bold red")
            for line in error_lines(api, dag_id, view, task):
                say(out, line)
            say(out, f"Log: {logs / f'task_id={task.task_id}' / f'attempt={task.attempts}.log'}")
    for job in filter(None, [*(view.tuning.trials if view.tuning else ()), view.training]):
        if job.failure:
            say(out, f"Job {job.name} failed: {job.failure}")


def show_responses(out: Console, endpoint: str, responses: list[EndpointResponse]) -> None:
    say(out, f"\nThe endpoint {endpoint}, on images of the test set:", style="bold")
    for response in responses:
        guesses = ", ".join(
            f"{guess['label']} {guess['probability']:.0%}" for guess in response.predictions[:CLASSES_SHOWN]
        )
        mark = "✓" if response.right else "✗"
        say(out, f"  {mark} {response.expected}/{response.image}: {guesses}")


def show_decision(out: Console, report: Mapping[str, Any]) -> None:
    """What the run decided, and where its page is."""
    say(out, f"\n{report['outcome']['label']}: {report['outcome']['sentence']}", style="bold")
    say(out, f"Report: {report['report_url']}")


def show_outcome(out: Console, settings: Settings, content: Mapping[str, Any]) -> None:
    metrics, times = content["metrics"], content["timing"]
    if content["best_hyperparameters"]:
        best = ", ".join(f"{name} {value}" for name, value in content["best_hyperparameters"].items())
        say(out, f"\nBest hyperparameters: {best}")
    if "test_accuracy" in metrics:
        say(out, f"Test accuracy: {metrics['test_accuracy']:.4f}")
    if "run_seconds" in times:
        say(
            out,
            f"Wall time {times['wall_seconds']:.0f} s; the run {times['run_seconds']:.0f} s: "
            f"{times['job_seconds']:.0f} s in jobs, {times['orchestration_seconds']:.0f} s in orchestration",
        )
    if content["report"]:
        show_decision(out, content["report"])
    say(out, f"Record: {settings.report}")
