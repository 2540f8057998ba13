"""Notifications: their content, that they arrive at real servers, and that no failure spreads."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Email, Notifications, Slack, Sns
from retraining.reporting.notifications import Message, RunNotifier, notifiers

from tests.dags.airflow_home import PLUGINS, migrate
from tests.local_sagemaker.runtime_process import RuntimeProcess, wait_for
from tests.plugins.reporting.receivers import MailServer, WebServer, serving

ERROR = "no images of {{ 7 * 7 }} <b> & `x`"
AIRFLOW = "http://airflow.example.com:8080"
RUN_ID = "manual__2026-11-22T00:00:00+00:00"
Load = Callable[[Pipeline], dict[str, DAG]]
MESSAGE = Message("dog_breed: Failed", ERROR, {"Run": RUN_ID}, {"Report": "http://s3/report?a=1&b=2"})


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    server = MailServer()
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": server.port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    with serving(server):
        yield server


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    server = WebServer()
    connection = {"conn_type": "slackwebhook", "password": server.url}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
    with serving(server):
        yield server


@pytest.fixture
def topic(runtime: RuntimeProcess) -> Iterator[tuple[str, WebServer]]:
    """An SNS topic of the local runtime, and the subscriber that it posts to."""
    sns, server = runtime.client("sns"), WebServer()
    arn = sns.create_topic(Name="runs")["TopicArn"]
    with serving(server):
        subscription = sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=server.url)["SubscriptionArn"]
        yield arn, server
        sns.unsubscribe(SubscriptionArn=subscription)


@pytest.fixture
def notifying(pipeline: Pipeline, topic: tuple[str, WebServer]) -> Pipeline:
    """A pipeline that sends every event to every channel."""
    channels = Notifications(sns=Sns(topic_arn=topic[0]), slack=Slack(), email=Email(to=["me@example.com"]))
    return pipeline.model_copy(update={"notifications": channels})


@dataclass(frozen=True)
class Servers:
    """Where the notifications of `notifying` arrive."""

    mail: MailServer
    slack: WebServer
    subscriber: WebServer


@pytest.fixture
def servers(
    mail: MailServer,
    slack: WebServer,
    topic: tuple[str, WebServer],
    database: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Servers:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", AIRFLOW)
    return Servers(mail, slack, topic[1])


@pytest.fixture(scope="session")
def database() -> None:
    migrate()


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Pipeline], dict[str, DAG]]:
    """Loads the DAGs of `notify_dag.py` for a pipeline, from a DAG folder of their own."""

    def of(pipeline: Pipeline) -> dict[str, DAG]:
        shutil.copy(Path(__file__).with_name("notify_dag.py"), tmp_path)
        (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline.model_dump(mode="json")))
        bundle = {
            "name": "tests",
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(tmp_path)},
        }
        monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        bag = DagBag(str(tmp_path))
        assert bag.import_errors == {}
        return dict(bag.dags)

    return of


def test_nobody_configured_is_fine(pipeline: Pipeline) -> None:
    assert all(notifiers(pipeline, event) is None for event in ("success", "failure", "approval"))


def test_only_the_events_that_are_wanted(pipeline: Pipeline) -> None:
    only = pipeline.model_copy(update={"notifications": Notifications(events=["failure"], slack=Slack())})
    assert notifiers(only, "failure")
    assert notifiers(only, "success") is notifiers(only, "approval") is None


def test_a_dag_with_notifiers_survives_serialisation_and_pickling(notifying: Pipeline, load: Load) -> None:
    made = load(notifying)["notify_pass"]
    again = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(made))))
    assert again.has_on_failure_callback
    assert [link.name for link in again.get_task("report").operator_extra_links] == ["Run report"]
    copy = pickle.loads(pickle.dumps(RunNotifier(notifying, "failure")))  # noqa: S301
    assert (copy.pipeline, copy.event) == (notifying, "failure")
    nobody = load(notifying.model_copy(update={"notifications": Notifications()}))["notify_pass"]
    assert not nobody.has_on_success_callback


def test_importing_brings_no_provider() -> None:
    """A DAG file imports it at every parse."""
    code = (
        f"import sys; sys.path.insert(0, {str(PLUGINS)!r}); import retraining.reporting.notifications;"
        "print([m for m in ('boto3', 'botocore', 'slack_sdk', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_every_form_of_a_message_escapes_what_is_special_in_it() -> None:
    assert ERROR in MESSAGE.text
    assert "&lt;b&gt; &amp;" in MESSAGE.html
    assert 'href="http://s3/report?a=1&amp;b=2"' in MESSAGE.html
    assert "&lt;b&gt; &amp; 'x'" in MESSAGE.slack
    assert "<http://s3/report?a=1&b=2|Report>" in MESSAGE.slack


ENDS = {
    "fail": ("dog_breed: Failed", f"The run failed at train: {ERROR}", "train"),
    "skip": ("dog_breed: Nothing changed", "Nothing changed since Monday.", "plan"),
    "pass": ("dog_breed: New model live", "The new model passed its verification.", None),
}


@pytest.mark.parametrize("behaviour", ENDS)
def test_the_end_of_a_run_reaches_every_channel(
    notifying: Pipeline, servers: Servers, load: Load, behaviour: str
) -> None:
    """First by a task, which has Airflow's API as the DAG processor has it, then by the callback of a DAG
    under test, which has not and only knows the state.
    """
    subject, sentence, ended = ENDS[behaviour]
    run = load(notifying)[f"notify_{behaviour}"].test()
    assert run.state == ("failed" if behaviour == "fail" else "success")
    assert {task.task_id: task.state for task in run.get_task_instances()}["report"] == run.state

    letter, last = servers.mail.mails
    assert letter["Subject"] == subject
    assert last["Subject"] == f"dog_breed: {'Failed' if behaviour == 'fail' else 'Succeeded'}"
    assert servers.mail.recipients == ["rcpt TO:<me@example.com>"] * 2
    body = letter.get_body(("html",))
    assert body is not None
    assert "report.html" in body.get_content()
    assert f"{AIRFLOW}/dags/notify_{behaviour}/runs/" in body.get_content()
    assert json.loads(servers.slack.bodies[0])["text"].startswith(f"*{subject}*\n")
    notice = wait_for(lambda: _notice(servers.subscriber), 10, "the message of SNS")
    assert notice["Subject"] == subject
    assert notice["Message"].startswith(sentence)
    assert (f"Ended at: {ended}" in notice["Message"]) is (ended is not None)


def _notice(server: WebServer) -> dict[str, Any] | None:
    bodies = [json.loads(body) for body in server.bodies]
    return next((body for body in bodies if body["Type"] == "Notification"), None)


class Approving:
    """The task instance of a task that waits for a person."""

    task_id = "approve"

    @staticmethod
    def xcom_pull(task_ids: str) -> dict[str, Any]:
        return {"sentence": f"{task_ids}: the challenger is better."}


CONTEXT: Any = {"dag": DAG("dog_breed_retraining", schedule=None), "run_id": RUN_ID, "ti": Approving()}


def test_a_person_is_asked(notifying: Pipeline, servers: Servers) -> None:
    """As the human-in-the-loop operator does it: the notifier is called with the task's context."""
    RunNotifier(notifying, "approval")({**CONTEXT})
    text = json.loads(servers.slack.bodies[0])["text"]
    assert "waiting for approval" in text
    assert "gate: the challenger is better." in text
    assert f"<{AIRFLOW}/dags/dog_breed_retraining/runs/manual__2026-11-22T00%3A00%3A00%2B00%3A00" in text
    assert "/tasks/approve/required_actions|Respond in Airflow>" in text
    assert servers.mail.mails[0]["Subject"] == "dog_breed: waiting for approval"


def test_without_an_address_of_airflow_there_is_no_link(notifying: Pipeline, slack: WebServer) -> None:
    only = notifying.model_copy(update={"notifications": Notifications(slack=Slack())})
    RunNotifier(only, "approval")({**CONTEXT})
    assert "|Respond" not in json.loads(slack.bodies[0])["text"]


def test_a_channel_that_fails_hides_no_other(
    notifying: Pipeline, mail: MailServer, slack: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    slack.status, slack.response = 500, b"no"
    missing = notifying.notifications.model_copy(
        update={"sns": Sns(topic_arn="arn:aws:sns:us-east-1:123456789012:missing")}
    )
    RunNotifier(notifying.model_copy(update={"notifications": missing}), "approval")({**CONTEXT})
    assert "No notification by SNS" in caplog.text
    assert "No notification by Slack" in caplog.text
    assert len(mail.mails) == 1


def test_a_missing_connection_is_only_logged(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture, database: None
) -> None:
    notifying = pipeline.model_copy(
        update={"notifications": Notifications(slack=Slack(connection="nowhere"))}
    )
    RunNotifier(notifying, "approval")({**CONTEXT})
    assert "No notification by Slack: AirflowNotFoundException" in caplog.text
    assert "nowhere" in caplog.text
