"""How a run ended: at which task, why, and in one sentence.

Airflow tells a task the states of the others, but not their errors. A task that fails therefore leaves its
reason in an XCom (`keep_reason`, a task callback), and so does one that skips itself (`skip_explained`).
Cheap to import, because a DAG file does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSkipException

from retraining.runs.results import OutcomeFacts, RunResults, RunVerdict

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance

REASON = "reason"
"""Key of the XCom that says why a task failed or skipped itself."""
_LONGEST_REASON = 4000  # characters
_FAILED, _SKIPPED = "failed", "skipped"
_PLAN = "plan"
_LABELS: dict[RunVerdict, str] = {
    "live": "New model live",
    "kept": "Champion stays",
    "unchanged": "Nothing changed",
    "failed": "Failed",
    "unfinished": "Not finished",
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `task` and `reason` say where and why it ended early, else they are None."""

    verdict: RunVerdict
    sentence: str
    task: str | None = None
    reason: str | None = None

    @property
    def facts(self) -> OutcomeFacts:
        """The outcome as JSON, with the verdict in words as `label`."""
        return {
            "verdict": self.verdict,
            "label": _LABELS[self.verdict],
            "sentence": self.sentence,
            "task": self.task,
            "reason": self.reason,
        }


def keep_reason(context: Context) -> None:
    """Callback of a task that failed: keeps the error's text for the run's report."""
    error = context.get("exception")
    if error is not None:
        text = str(error) or type(error).__name__
        context["ti"].xcom_push(key=REASON, value=text[:_LONGEST_REASON])


@contextmanager
def skip_explained(ti: TaskInstance) -> Iterator[None]:
    """Keep the text of an AirflowSkipException raised inside for the run's report.

    Airflow does not pass it to callbacks, as it does with errors.
    """
    try:
        yield
    except AirflowSkipException as skip:
        ti.xcom_push(key=REASON, value=str(skip)[:_LONGEST_REASON])
        raise


def run_state(context: Context, run_id: str) -> str | None:
    """The state of a run of the DAG; None where Airflow does not tell, as for a deleted run."""
    try:
        return context["ti"].get_dagrun_state(context["dag"].dag_id, run_id)
    except AirflowRuntimeError:
        return None


def task_states(context: Context, run_id: str | None = None) -> dict[str, str]:
    """The states of a run's tasks so far, in the order in which they run; tasks without one are left out.

    Needs the context of a task or callback of the DAG, with `ti` in it; its own run is the default.
    """
    ti, dag, run_id = context["ti"], context["dag"], run_id or context["run_id"]
    found = ti.get_task_states(dag_id=dag.dag_id, run_ids=[run_id]).get(run_id, {})
    order = [task.task_id for task in dag.topological_sort()]  # type: ignore[no-untyped-call]
    return {task: str(found[task]) for task in order if found.get(task)}


def failure_reasons(context: Context, states: Mapping[str, str], run_id: str | None = None) -> dict[str, str]:
    """Why tasks failed or skipped themselves, by task, where they left a reason."""
    ended = [task for task, state in states.items() if state in {_FAILED, _SKIPPED}]
    found = {task: context["ti"].xcom_pull(task_ids=task, key=REASON, run_id=run_id) for task in ended}
    return {task: str(reason) for task, reason in found.items() if reason}


def run_url(context: Context, run_id: str | None = None) -> str | None:
    """A run's page in Airflow; None if Airflow's configuration names no base_url."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback=None)
    if not base:
        return None
    return (
        f"{base.rstrip('/')}/dags/{context['dag'].dag_id}/runs/{quote(run_id or context['run_id'], safe='')}"
    )


def outcome_of(states: Mapping[str, str], reasons: Mapping[str, str], results: RunResults) -> Outcome:
    """How a run ended, from its tasks' states in their order, their reasons and their results."""
    gate, approval = results.get("gate"), results.get("approval")
    failed = next((task for task, state in states.items() if state == _FAILED), None)
    if failed:
        reason = reasons.get(failed)
        why = f": {reason}" if reason else "; the task's log has the reason."
        return Outcome("failed", f"The run failed at {failed}{why}", failed, reason)
    if states.get(_PLAN) == _SKIPPED:
        reason = reasons.get(_PLAN)
        sentence = reason or "Data, code and settings are those of the last run, so nothing was done."
        return Outcome("unchanged", sentence, _PLAN, reason)
    if gate and not gate["approved"]:
        return Outcome("kept", gate["sentence"], "gate", gate["sentence"])
    if approval and not approval["approved"]:
        return Outcome("kept", approval["sentence"], "approve", approval["sentence"])
    if results.get("verification"):
        return Outcome("live", gate["sentence"] if gate else "The new model passed its verification.")
    last = next((task for task, state in reversed(list(states.items())) if state == "success"), None)
    return Outcome("unfinished", f"The run ended after {last or 'its start'}, before its model was verified.")
