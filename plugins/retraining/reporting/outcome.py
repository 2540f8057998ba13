"""How a run ended: at which task, why, and in one sentence.

Airflow tells a task the states of the others, but not their errors. A task that fails therefore leaves its
reason in an XCom (`keep_reason`, a task callback), and one that skips itself does the same
(`skip_explained`). Cheap to import, because a DAG file does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

Verdict = Literal["live", "kept", "unchanged", "failed", "unfinished"]

REASON = "reason"
"""Key of the XCom with the reason why a task failed or skipped itself."""
_LONGEST_REASON = 4000
_FAILED, _SKIPPED = "failed", "skipped"
_PLAN = "plan"


@dataclass(frozen=True)
class Outcome:
    """`task` and `reason` say where the run ended early; None for a run that went to its end."""

    verdict: Verdict
    sentence: str
    task: str | None = None
    reason: str | None = None

    @property
    def label(self) -> str:
        """The verdict in words."""
        return {
            "live": "New model live",
            "kept": "Champion stays",
            "unchanged": "Nothing changed",
            "failed": "Failed",
            "unfinished": "Not finished",
        }[self.verdict]


def keep_reason(context: Context) -> None:
    """Callback of a task that failed: leaves the error's text to the run's report."""
    error = context.get("exception")
    if error is not None:
        text = str(error) or type(error).__name__
        context["ti"].xcom_push(key=REASON, value=text[:_LONGEST_REASON])


@contextmanager
def skip_explained(ti: Any) -> Iterator[None]:
    """Around what may raise AirflowSkipException: leaves its text to the run's report.

    A callback does not get to see it, other than an error.
    """
    try:
        yield
    except AirflowSkipException as skip:
        ti.xcom_push(key=REASON, value=str(skip)[:_LONGEST_REASON])
        raise


def task_states(context: Context) -> dict[str, str]:
    """The states of the run's tasks so far, in the order in which they run; tasks without one are left out.

    Needs the task's or callback's context of a run, with `ti` in it.
    """
    ti, dag = context["ti"], context["dag"]
    found = ti.get_task_states(dag_id=dag.dag_id, run_ids=[context["run_id"]]).get(context["run_id"], {})
    order = [task.task_id for task in dag.topological_sort()]  # type: ignore[no-untyped-call]
    return {task: str(found[task]) for task in order if found.get(task)}


def reasons(context: Context, states: Mapping[str, str]) -> dict[str, str]:
    """Why tasks failed or skipped themselves, by task, where they said so."""
    ended = [task for task, state in states.items() if state in {_FAILED, _SKIPPED}]
    found = {task: context["ti"].xcom_pull(task_ids=task, key=REASON) for task in ended}
    return {task: str(reason) for task, reason in found.items() if reason}


def run_url(context: Context) -> str | None:
    """The run's page in Airflow; None where Airflow has no address of its own."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback=None)
    if not base:
        return None
    return f"{base.rstrip('/')}/dags/{context['dag'].dag_id}/runs/{quote(context['run_id'], safe='')}"


def outcome_of(
    states: Mapping[str, str],
    why: Mapping[str, str],
    *,
    gate: Mapping[str, Any] | None,
    approval: Mapping[str, Any] | None,
    verification: Mapping[str, Any] | None,
) -> Outcome:
    """Judge a run by its tasks' states, in their order, and by what the tasks said."""
    failed = next((task for task, state in states.items() if state == _FAILED), None)
    if failed:
        reason = why.get(failed)
        told = f": {reason}" if reason else "; the task's log has the reason."
        return Outcome("failed", f"The run failed at {failed}{told}", failed, reason)
    if states.get(_PLAN) == _SKIPPED:
        reason = why.get(_PLAN)
        sentence = reason or "Data, code and settings are those of the last run, so nothing was done."
        return Outcome("unchanged", sentence, _PLAN, reason)
    if gate and not gate["approved"]:
        return Outcome("kept", str(gate["sentence"]), "gate", str(gate["sentence"]))
    if approval and not approval["approved"]:
        return Outcome("kept", str(approval["sentence"]), "approve", str(approval["sentence"]))
    if verification:
        decision = str(gate["sentence"]) if gate else "The new model passed the check of its endpoint."
        return Outcome("live", decision)
    last = next((task for task, state in reversed(list(states.items())) if state == "success"), None)
    return Outcome("unfinished", f"The run ended after {last or 'its start'}, before its model was verified.")
