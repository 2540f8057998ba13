"""What the demonstration asks of Airflow, through the REST API that Airflow's own UI uses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Any, Self
from urllib.parse import quote

import httpx

from demo.settings import DemoError

DAG_SECONDS = 120.0
POLL_SECONDS = 0.5
FINISHED_RUN = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskState:
    """One task of a run; times are None where it has not started or ended."""

    task_id: str
    state: str
    attempts: int
    started: datetime | None
    ended: datetime | None

    @property
    def seconds(self) -> float | None:
        if self.started is None:
            return None
        return ((self.ended or datetime.now(UTC)) - self.started).total_seconds()


@dataclass(frozen=True)
class DagRun:
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None


def moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def task_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"


def content(response: httpx.Response) -> Any:
    """The JSON of a response; DemoError with Airflow's own words for anything but success."""
    if response.is_error:
        asked = f"{response.request.method} {response.request.url.path}"
        raise DemoError(f"Airflow responded with HTTP {response.status_code} to {asked}: {response.text}")
    return response.json()


class AirflowApi:
    """A logged-in client of the REST API, version 2."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30.0)
        response = self.client.post("/auth/token", json={"username": user, "password": password})
        if response.status_code != 201:
            raise DemoError(
                f"Airflow at {url} refused the user {user}: HTTP {response.status_code} {response.text}"
            )
        self.token: str = response.json()["access_token"]
        self.client.headers["Authorization"] = f"Bearer {self.token}"

    def url_of(self, dag_id: str, run_id: str) -> str:
        """The address of a run's page."""
        return str(self.client.base_url.join(f"/dags/{dag_id}/runs/{quote(run_id)}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON response; DemoError with Airflow's own words for anything but success."""
        return content(self.client.request(method, f"/api/v2/{path}", **arguments))

    def wait_for_dag(self, dag_id: str) -> None:
        """Until the DAG has been read; DemoError with the traceback where a DAG file cannot be imported."""
        deadline = time.monotonic() + DAG_SECONDS
        while time.monotonic() < deadline:
            if self.client.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK:
                return
            for error in self.call("GET", "importErrors")["import_errors"]:
                raise DemoError(f"{error['filename']} cannot be imported:\n{error['stack_trace']}")
            time.sleep(POLL_SECONDS)
        raise DemoError(f"Airflow did not find the DAG {dag_id} within {DAG_SECONDS:.0f} s")

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": False})

    def parameters(self, dag_id: str) -> list[str]:
        """The names of the form's fields, sorted; none of a DAG without a form."""
        return sorted(self.call("GET", f"dags/{dag_id}/details")["params"] or {})

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run, as the UI's form does; its id."""
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self.call("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def update_asset(self, name: str) -> datetime:
        """Say that an asset has changed, as a producer of it would; when Airflow took note."""
        found = self.call("GET", "assets", params={"name_pattern": name, "limit": 100})["assets"]
        ids = [asset["id"] for asset in found if asset["name"] == name]
        if not ids:
            raise DemoError(f"Airflow knows no asset {name}: is its DAG imported and unpaused?")
        event = self.call("POST", "assets/events", json={"asset_id": ids[0], "extra": {"from": "make"}})
        return datetime.fromisoformat(event["timestamp"])

    def run_of_asset(self, dag_id: str, since: datetime) -> str:
        """The id of the run that an asset's update at `since` has started, once it is there."""
        deadline = time.monotonic() + DAG_SECONDS
        wanted = {
            "run_type": ["asset_triggered"],
            "run_after_gte": since.isoformat(),
            "order_by": "run_after",
        }
        while time.monotonic() < deadline:
            runs = self.call("GET", f"dags/{dag_id}/dagRuns", params=wanted)["dag_runs"]
            if runs:
                return str(runs[0]["dag_run_id"])
            time.sleep(POLL_SECONDS)
        raise DemoError(
            f"The asset's update started no run of {dag_id} within {DAG_SECONDS:.0f} s; another run of it "
            "may still be going"
        )

    def task_order(self, dag_id: str) -> list[str]:
        """The DAG's tasks, each after those it waits for."""
        waits_for: dict[str, set[str]] = {}
        for task in self.call("GET", f"dags/{dag_id}/tasks")["tasks"]:
            waits_for.setdefault(task["task_id"], set())
            for downstream in task["downstream_task_ids"]:
                waits_for.setdefault(downstream, set()).add(task["task_id"])
        return list(TopologicalSorter(waits_for).static_order())

    def active_runs(self, dag_id: str) -> list[str]:
        """Ids of the runs that have not ended."""
        response = self.call("GET", f"dags/{dag_id}/dagRuns", params={"state": ["running", "queued"]})
        return [run["dag_run_id"] for run in response["dag_runs"]]

    def end_run(self, dag_id: str, run_id: str) -> None:
        """Mark a run as failed, which ends its tasks."""
        path = f"dags/{dag_id}/dagRuns/{run_id}"
        self.call("PATCH", path, params={"update_mask": "state"}, json={"state": "failed"})

    def clear_failed(self, dag_id: str, run_id: str) -> None:
        """Let the failed tasks of a run, and what waits for them, run again."""
        self._clear(dag_id, run_id, only_failed=True)

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Raises DemoError for a run that is going on."""
        response = self.client.delete(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        if response.is_error:
            content(response)

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set a task's state, as a person does."""
        path = task_path(dag_id, run_id, task_id)
        self.call("PATCH", path, params={"update_mask": "new_state"}, json={"new_state": state})

    def clear_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Let a task of a run, and what waits for it, run again."""
        self._clear(dag_id, run_id, only_failed=False, task_ids=[task_id], include_downstream=True)

    def _clear(self, dag_id: str, run_id: str, **which: Any) -> None:
        body = {"dry_run": False, "dag_run_id": run_id, "reset_dag_runs": True, **which}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def run(self, dag_id: str, run_id: str) -> DagRun:
        response = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")
        return DagRun(run_id, response["state"], moment(response["start_date"]), moment(response["end_date"]))

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        response = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        return [
            TaskState(
                task_id=task["task_id"],
                state=task["state"] or "waiting",
                attempts=task["try_number"],
                started=moment(task["start_date"]),
                ended=moment(task["end_date"]),
            )
            for task in response["task_instances"]
        ]

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned; None where it returned nothing."""
        path = f"{task_path(dag_id, run_id, task_id)}/xcomEntries/return_value"
        response = self.client.get(f"/api/v2/{path}", params={"deserialize": True})
        return None if response.status_code == httpx.codes.NOT_FOUND else content(response)["value"]

    def asks(self, dag_id: str, run_id: str, task_id: str) -> bool:
        """Whether a task waits for a person."""
        task = task_path(dag_id, run_id, task_id)
        rests = self.call("GET", task)["state"] == "awaiting_input"
        return rests and not self.call("GET", f"{task}/-1/hitlDetails")["response_received"]

    def respond(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        question = f"{task_path(dag_id, run_id, task_id)}/-1/hitlDetails"
        self.call("PATCH", question, json={"chosen_options": [option], "params_input": {}})

    def log(self, dag_id: str, run_id: str, task: TaskState) -> list[Mapping[str, Any]]:
        """The log of the task's last try, one mapping a line (`event`, `level`, `error_detail`)."""
        path = f"{task_path(dag_id, run_id, task.task_id)}/logs/{max(task.attempts, 1)}"
        response = self.call(
            "GET", path, params={"full_content": True}, headers={"Accept": "application/json"}
        )
        return [line if isinstance(line, dict) else {"event": str(line)} for line in response["content"]]
