"""The approval: what a person is shown, and what each response does, in an Airflow that really waits."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from retraining.aws.clients import Aws
from retraining.aws.s3 import write
from retraining.config.sections import Gate
from retraining.evaluation.approval import approved_or_skip, body, decision_of, subject, without_asking
from retraining.evaluation.gate import decide
from retraining.runs.results import ApprovalResult

from tests.dags.airflow_home import BUCKET, REPOSITORY, migrate
from tests.local_sagemaker.runtime_process import wait_for
from tests.plugins.evaluations import NO_RULES, evaluation_document
from tests.plugins.models import put_version

RULE = {
    "rule": "Overfit",
    "policy": "warn",
    "status": "IssuesFound",
    "finding": "loss 0.9 | twice the training's",
    "details": "",
}
RULES: Any = {**NO_RULES, "rules": [RULE]}
COST = {"max_usd": 4.2, "endpoint": {"usd_per_month": 83.95}}

DAG_FILE = """
import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task
from retraining.config.pipeline import Pipeline, load_pipeline
from retraining.operators.approval import ApprovalOperator

given = json.loads(Path(__file__).with_suffix(".json").read_text())
pipeline = load_pipeline(Path(given["pipeline"]))
pipeline = Pipeline.model_validate({**pipeline.model_dump(), "approval": given["approval"]})

@dag(dag_id=given["dag_id"], schedule=None)
def asking():
    @task
    def deploy(approval):
        from retraining.evaluation.approval import approved_or_skip

        approved_or_skip(approval)

    approve = ApprovalOperator(
        task_id="approve",
        pipeline=pipeline,
        plan=given["plan"],
        gate=given["gate"],
        package=given["package"],
        debugger=given["debugger"],
    )
    deploy(approve.output)

asking()
"""


@pytest.fixture(scope="session")
def database() -> None:
    """The metadata database, with the bundle of DAGs that Airflow's settings name."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    migrate()
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]


@pytest.fixture
def gate_decision() -> Any:
    document = evaluation_document({"a.Akita": 9, "b.Boxer": 5}, {"a.Akita": 6, "b.Boxer": 6})
    charts = [f"s3://{BUCKET}/approval/evaluation/confusion_matrix.png"]
    return {**decide(Gate(min_improvement=-1), document, NO_RULES), "charts": charts}


@pytest.fixture
def package(aws: Aws) -> Any:
    """A version that waits for approval."""
    group = f"approval-{uuid.uuid4().hex[:6]}"
    artifact = write(aws.s3, f"s3://{BUCKET}/{group}/model.tar.gz", b"a model")
    arn = put_version(aws, group, artifact, "PendingManualApproval")
    return {"group": group, "version": 1, "arn": arn, "status": "PendingManualApproval"}


def run_facts(approval: bool = True) -> Any:
    """The plan's part `run`."""
    return {"name": "dog-breed-1", "endpoint": "dog-breed", "approval": approval, "cost": COST}


def status(aws: Aws, package: Any) -> tuple[str, str]:
    version = aws.sagemaker.describe_model_package(ModelPackageName=package["arn"])
    return version["ModelApprovalStatus"], version.get("ApprovalDescription", "")


def decision(approved: bool, sentence: str, by: str | None = None, at: str | None = None) -> ApprovalResult:
    return {"approved": approved, "sentence": sentence, "by": by, "at": at}


def gated(sentence: str, approved: bool = True) -> Any:
    """As much of the gate's decision as the approval reads."""
    return {"approved": approved, "ask": None, "sentence": sentence}


def test_a_model_that_stays_out_skips_the_deployment_with_its_reason() -> None:
    approved_or_skip(decision(True, "fine"))
    with pytest.raises(AirflowSkipException, match="The challenger stays out: worse"):
        approved_or_skip(decision(False, "The challenger stays out: worse."))


@pytest.mark.parametrize(("approved", "wanted"), [(True, False), (False, True), (False, False)])
def test_nobody_is_asked_where_the_gate_said_no_or_the_run_does_not_want_it(
    approved: bool, wanted: bool
) -> None:
    gate = gated("Because.", approved)
    assert without_asking(run_facts(wanted), gate) == decision(approved, "Because.")
    assert without_asking(run_facts(), gated("")) is None


def test_a_person_is_asked_about_lost_classes_whatever_the_settings_say() -> None:
    gate: Any = {**gated("Because."), "ask": "it lacks a class of the champion (d.Dingo)"}
    assert without_asking(run_facts(False), gate) is None
    gate["approved"] = False
    assert without_asking(run_facts(False), gate) is not None


@pytest.mark.parametrize(
    "event",
    [
        {"chosen_options": ["Reject"], "responded_by_user": None, "responded_at": None, "timedout": True},
        {"error": "too late", "error_type": "timeout"},
    ],
)
def test_no_response_in_time_is_a_no(event: dict[str, Any]) -> None:
    result = decision_of(event, gated("It goes live."), "Approve", 72)
    assert result == decision(False, "The challenger stays out: nobody responded within 72 hours.")


def test_a_decision_says_who_and_when() -> None:
    event = {
        "chosen_options": ["Approve"],
        "responded_by_user": {"id": "1", "name": "Ada"},
        "responded_at": datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
        "timedout": False,
    }
    result = decision_of(event, gated("It goes live."), "Approve", 72)
    assert result == decision(
        True, "Approved by Ada. It goes live.", by="Ada", at="2026-11-22T08:00:00+00:00"
    )
    denied = decision_of({**event, "chosen_options": ["Reject"]}, gated("It goes live."), "Approve", 72)
    assert denied["approved"] is False
    assert "Ada rejected it" in denied["sentence"]


def test_the_request_shows_figures_classes_rules_cost_and_charts(gate_decision: Any, aws: Aws) -> None:
    text = body(run_facts(), gate_decision, RULES, aws.s3)
    assert text.startswith(gate_decision["sentence"])
    assert "| Accuracy | 0.600 | 0.700 |" in text
    assert "| b.Boxer | 10 | 0.600 | 0.500 |" in text
    assert "| Overfit | IssuesFound | warn | loss 0.9 \\| twice the training's |" in text
    assert "$4.20" in text
    assert "[confusion matrix](http" in text
    version: Any = {"group": "dog-breed", "version": 7}
    assert subject(run_facts(), version) == ("Put version 7 of dog-breed into service at dog-breed?")


def test_the_first_model_is_shown_without_a_champion(aws: Aws) -> None:
    first: Any = {**decide(Gate(), evaluation_document({"a.Akita": 9}), NO_RULES), "charts": []}
    text = body(run_facts(), first, None, aws.s3)
    assert "| Accuracy | none | 0.900 |" in text
    assert "Lowest recall" in text


Ask = Callable[..., Any]


@pytest.fixture
def ask(database: None, tmp_path: Path, gate_decision: Any, package: Any) -> Ask:
    """Runs a DAG of the operator and the task after it; `respond` is called once the task waits."""

    def run(
        respond: Callable[[Any], None] | None = None, hours: float | None = 72, approval: bool = True
    ) -> Any:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        name = f"asking_{uuid.uuid4().hex[:6]}"
        given = {
            "dag_id": name,
            "pipeline": str(REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml"),
            "approval": {"required": True, "timeout_hours": hours},
            "plan": {"run": run_facts(approval)},
            "gate": gate_decision,
            "package": package,
            "debugger": RULES,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
        (tmp_path / f"{name}.py").write_text(DAG_FILE)
        bag = DagBag(str(tmp_path))
        assert bag.import_errors == {}
        sync_bag_to_db(bag, "dags-folder", None)
        person = threading.Thread(target=_respond_when_asked, args=(name, respond))
        person.start()
        try:
            return bag.dags[name].test()
        finally:
            person.join(timeout=60)

    return run


_STEADY = 5  # polls of 0.2 s


def _respond_when_asked(dag_id: str, respond: Callable[[Any], None] | None) -> None:
    """Wait until the DAG's task waits for input, then respond, as the API server does in its own process.

    The task says that it waits a moment before `DAG.test` does, which would overwrite the state that an
    immediate response sets, and then wait for ever. So it has to be seen waiting a few times in a row.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    seen = 0

    def waiting() -> bool:
        nonlocal seen
        with create_session() as session:
            query = select(TaskInstance.state).where(
                TaskInstance.dag_id == dag_id, TaskInstance.task_id == "approve"
            )
            seen = seen + 1 if session.scalar(query) == "awaiting_input" else 0
        return seen > _STEADY

    if respond is None:
        return
    try:
        wait_for(waiting, 60, "a request for approval", every=0.2)
        respond(dag_id)
    except BaseException:
        _give_up(dag_id)  # otherwise the run would wait for ever
        raise


def _give_up(dag_id: str) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == dag_id).values(state="failed"))


def choose(option: str) -> Callable[[str], None]:
    """What the API server does with a person's response."""

    def respond(dag_id: str) -> None:
        from airflow.models.hitl import HITLUser
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import handle_event_submit
        from airflow.triggers.base import TriggerEvent
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from sqlalchemy.orm import joinedload

        with create_session() as session:
            waiting = session.scalars(
                select(TaskInstance)
                .where(TaskInstance.dag_id == dag_id, TaskInstance.task_id == "approve")
                .options(joinedload(TaskInstance.hitl_detail))
            ).one()
            detail = waiting.hitl_detail
            assert "Put version 1" in detail.subject
            assert "| Accuracy | 0.600 | 0.700 |" in detail.body
            detail.responded_by = HITLUser(id="1", name="Ada")
            detail.responded_at = datetime.now(UTC)
            detail.chosen_options = [option]
            detail.params_input = {}
            payload = TriggerEvent(detail.as_resume_event_payload())  # type: ignore[no-untyped-call]
            handle_event_submit(payload, task_instance=waiting, session=session)

    return respond


def sweep(dag_id: str) -> None:
    """The scheduler's own check for requests that have timed out."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    job = Job()  # type: ignore[no-untyped-call]
    SchedulerJobRunner(job=job).check_awaiting_input_timeouts()


def outcome(run: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """States by task, and what `approve` returned."""
    tasks = {task.task_id: task for task in run.get_task_instances()}
    returned = tasks["approve"].xcom_pull(task_ids="approve")
    return {name: str(task.state) for name, task in tasks.items()}, returned


def test_an_approval_resumes_the_run(ask: Ask, aws: Aws, package: Any) -> None:
    states, result = outcome(ask(choose("Approve")))
    assert states == {"approve": "success", "deploy": "success"}
    assert (result["approved"], result["by"]) == (True, "Ada")
    assert status(aws, package)[0] == "Approved"
    assert status(aws, package)[1].startswith("Approved by Ada.")


def test_a_denial_skips_the_deployment_and_rejects_the_version(ask: Ask, aws: Aws, package: Any) -> None:
    run = ask(choose("Reject"))
    states, result = outcome(run)
    assert states == {"approve": "success", "deploy": "skipped"}
    assert run.state == "success"
    assert result["approved"] is False
    assert status(aws, package) == ("Rejected", result["sentence"])


def test_silence_is_a_no(ask: Ask, aws: Aws, package: Any) -> None:
    states, result = outcome(ask(sweep, hours=1e-6))
    assert states == {"approve": "success", "deploy": "skipped"}
    assert "nobody responded" in result["sentence"]
    assert status(aws, package)[0] == "Rejected"


def test_a_run_that_wants_no_approval_does_not_wait(ask: Ask, aws: Aws, package: Any) -> None:
    states, result = outcome(ask(approval=False))
    assert states == {"approve": "success", "deploy": "success"}
    assert result["by"] is None
    assert status(aws, package)[0] == "PendingManualApproval"  # `register` gave such a run its status
