"""The approval: what a person is shown, and what each answer does, in an Airflow that really waits."""

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
from retraining.evaluation.approval import answered, approved_or_skip, body, decision, subject, without_asking
from retraining.evaluation.gate import decide

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
RULES = {**NO_RULES, "rules": [RULE]}
COST = {"max_usd": 4.2, "endpoint": {"usd_per_month": 83.95}}

DAG_FILE = """
import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task
from retraining.operators.declared import ApprovalOperator
from retraining.config.pipeline import Pipeline, load_pipeline

given = json.loads(Path(__file__).with_suffix(".json").read_text())
pipeline = load_pipeline(Path(given["pipeline"]))
pipeline = Pipeline.model_validate({**pipeline.model_dump(), "approval": given["approval"]})

@dag(dag_id=given["dag_id"], schedule=None)
def asking():
    @task
    def choose_model(approval):
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
    choose_model(approve.output)

asking()
"""


@pytest.fixture(scope="session")
def database() -> None:
    """The metadata database, with the bundle of DAGs that Airflow's settings name."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    migrate()
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]


@pytest.fixture
def gate_decision() -> dict[str, Any]:
    document = evaluation_document({"a.Akita": 9, "b.Boxer": 5}, {"a.Akita": 6, "b.Boxer": 6})
    charts = [f"s3://{BUCKET}/approval/evaluation/confusion_matrix.png"]
    return {**decide(Gate(min_improvement=-1), document, NO_RULES), "charts": charts}


@pytest.fixture
def package(aws: Aws) -> dict[str, Any]:
    """A version that waits for approval."""
    group = f"approval-{uuid.uuid4().hex[:6]}"
    artifact = write(aws.s3, f"s3://{BUCKET}/{group}/model.tar.gz", b"a model")
    arn = put_version(aws, group, artifact, "PendingManualApproval")
    return {"group": group, "version": 1, "arn": arn, "status": "PendingManualApproval"}


def run_part(approval: bool = True) -> dict[str, Any]:
    """The plan's part `run`."""
    return {"name": "dog-breed-1", "endpoint": "dog-breed", "approval": approval, "cost": COST}


def status(aws: Aws, package: dict[str, Any]) -> tuple[str, str]:
    version = aws.sagemaker.describe_model_package(ModelPackageName=package["arn"])
    return version["ModelApprovalStatus"], version.get("ApprovalDescription", "")


def test_a_model_that_stays_out_skips_the_deployment_with_its_reason() -> None:
    approved_or_skip(decision(True, "fine"))
    with pytest.raises(AirflowSkipException, match="The challenger stays out: worse"):
        approved_or_skip(decision(False, "The challenger stays out: worse."))


@pytest.mark.parametrize(("approved", "wanted"), [(True, False), (False, True), (False, False)])
def test_nobody_is_asked_where_the_gate_said_no_or_the_run_does_not_want_it(
    approved: bool, wanted: bool
) -> None:
    gate = {"approved": approved, "sentence": "Because."}
    assert without_asking(run_part(wanted), gate) == decision(approved, "Because.")
    assert without_asking(run_part(), {"approved": True, "sentence": ""}) is None


@pytest.mark.parametrize(
    "event",
    [
        {"chosen_options": ["Reject"], "responded_by_user": None, "responded_at": None, "timedout": True},
        {"error": "too late", "error_type": "timeout"},
    ],
)
def test_no_answer_in_time_is_a_no(event: dict[str, Any]) -> None:
    result = answered(event, {"sentence": "It goes live."}, "Approve", 72)
    assert result == decision(False, "The challenger stays out: nobody answered within 72 hours.")


def test_an_answer_carries_who_and_when() -> None:
    event = {
        "chosen_options": ["Approve"],
        "responded_by_user": {"id": "1", "name": "Ada"},
        "responded_at": datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
        "timedout": False,
    }
    result = answered(event, {"sentence": "It goes live."}, "Approve", 72)
    assert result == decision(
        True, "Approved by Ada. It goes live.", by="Ada", at="2026-11-22T08:00:00+00:00"
    )
    denied = answered({**event, "chosen_options": ["Reject"]}, {"sentence": "It goes live."}, "Approve", 72)
    assert denied["approved"] is False
    assert "Ada rejected it" in denied["sentence"]


def test_the_request_shows_figures_classes_rules_cost_and_charts(
    gate_decision: dict[str, Any], aws: Aws
) -> None:
    text = body(run_part(), gate_decision, RULES, aws.s3)
    assert text.startswith(gate_decision["sentence"])
    assert "| Accuracy | 0.600 | 0.700 |" in text
    assert "| b.Boxer | 10 | 0.600 | 0.500 |" in text
    assert "| Overfit | IssuesFound | warn | loss 0.9 \\| twice the training's |" in text
    assert "$4.20" in text
    assert "[confusion matrix](http" in text
    assert subject(run_part(), {"group": "dog-breed", "version": 7}) == (
        "Put version 7 of dog-breed into service at dog-breed?"
    )


def test_the_first_model_is_shown_without_a_champion(aws: Aws) -> None:
    first = {**decide(Gate(), evaluation_document({"a.Akita": 9}), NO_RULES), "charts": []}
    text = body(run_part(), first, None, aws.s3)
    assert "| Accuracy | none | 0.900 |" in text
    assert "Lowest recall" in text


Ask = Callable[..., Any]


@pytest.fixture
def ask(database: None, tmp_path: Path, gate_decision: dict[str, Any], package: dict[str, Any]) -> Ask:
    """Runs a DAG of the operator and the task after it; `answer` is called once the task waits."""

    def run(
        answer: Callable[[Any], None] | None = None, hours: float | None = 72, approval: bool = True
    ) -> Any:
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

        name = f"asking_{uuid.uuid4().hex[:6]}"
        given = {
            "dag_id": name,
            "pipeline": str(REPOSITORY / "dags" / "pipelines" / "dog_breed.yaml"),
            "approval": {"required": True, "timeout_hours": hours},
            "plan": {"run": run_part(approval)},
            "gate": gate_decision,
            "package": package,
            "debugger": RULES,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(given))
        (tmp_path / f"{name}.py").write_text(DAG_FILE)
        bag = DagBag(str(tmp_path))
        assert bag.import_errors == {}
        sync_bag_to_db(bag, "dags-folder", None)
        person = threading.Thread(target=_answer_when_asked, args=(name, answer))
        person.start()
        try:
            return bag.dags[name].test()
        finally:
            person.join(timeout=60)

    return run


def _answer_when_asked(dag_id: str, answer: Callable[[Any], None] | None) -> None:
    """Wait for the DAG's task to wait for input, then answer, as the API server does in its own process."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    def waiting() -> bool:
        with create_session() as session:
            query = select(TaskInstance.state).where(
                TaskInstance.dag_id == dag_id, TaskInstance.task_id == "approve"
            )
            return session.scalar(query) == "awaiting_input"

    if answer is None:
        return
    try:
        wait_for(waiting, 60, "a request for approval", every=0.2)
        answer(dag_id)
    except BaseException:
        _give_up(dag_id)  # or the run would wait for an answer for ever
        raise


def _give_up(dag_id: str) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import update

    with create_session() as session:
        session.execute(update(TaskInstance).where(TaskInstance.dag_id == dag_id).values(state="failed"))


def respond(option: str) -> Callable[[str], None]:
    """What the API server does with a person's answer."""

    def answer(dag_id: str) -> None:
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

    return answer


def sweep(dag_id: str) -> None:
    """The scheduler's own look for requests whose time has passed."""
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

    job = Job()  # type: ignore[no-untyped-call]
    SchedulerJobRunner(job=job).check_awaiting_input_timeouts()


def outcome(run: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """States by task, and what `approve` returned."""
    tasks = {task.task_id: task for task in run.get_task_instances()}
    returned = tasks["approve"].xcom_pull(task_ids="approve")
    return {name: str(task.state) for name, task in tasks.items()}, returned


def test_an_approval_resumes_the_run(ask: Ask, aws: Aws, package: dict[str, Any]) -> None:
    states, result = outcome(ask(respond("Approve")))
    assert states == {"approve": "success", "choose_model": "success"}
    assert (result["approved"], result["by"]) == (True, "Ada")
    assert status(aws, package)[0] == "Approved"
    assert status(aws, package)[1].startswith("Approved by Ada.")


def test_a_denial_skips_the_deployment_and_rejects_the_version(
    ask: Ask, aws: Aws, package: dict[str, Any]
) -> None:
    run = ask(respond("Reject"))
    states, result = outcome(run)
    assert states == {"approve": "success", "choose_model": "skipped"}
    assert run.state == "success"
    assert result["approved"] is False
    assert status(aws, package) == ("Rejected", result["sentence"])


def test_silence_is_a_no(ask: Ask, aws: Aws, package: dict[str, Any]) -> None:
    states, result = outcome(ask(sweep, hours=1e-6))
    assert states == {"approve": "success", "choose_model": "skipped"}
    assert "nobody answered" in result["sentence"]
    assert status(aws, package)[0] == "Rejected"


def test_a_run_that_wants_no_approval_does_not_wait(ask: Ask, aws: Aws, package: dict[str, Any]) -> None:
    states, result = outcome(ask(approval=False))
    assert states == {"approve": "success", "choose_model": "success"}
    assert result["by"] is None
    assert status(aws, package)[0] == "PendingManualApproval"  # `register` gave such a run its status
