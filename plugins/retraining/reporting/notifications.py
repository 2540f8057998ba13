"""Says how a run ended, or that it waits for a person, where the pipeline file wants it said.

A `RunNotifier` is a callback of a DAG, which Airflow calls in the DAG processor, or a notifier of the
approval's operator, called in the task. It sends through Airflow's own notifiers for SNS, Slack and e-mail.
Cheap to import, because a DAG file does; the providers are imported when there is something to say.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from retraining.aws.clients import CONNECTION
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Email, Slack, Sns
from retraining.reporting.outcome import outcome_of, reasons, run_url, task_states

log = logging.getLogger(__name__)

Event = Literal["success", "failure", "approval"]
Callback = Callable[[Context], None]
Send = Callable[[], None]

_REPORT, _GATE = "report", "gate"
_SNS_SUBJECT = 100  # characters; SNS takes no more, and only ASCII
_LONGEST_SENTENCE = 1500
_NO_API = (ImportError, NameError, AirflowRuntimeError)
"""What asking for XComs or states raises where there is no API to ask, as in a callback under `dag.test`."""


@dataclass(frozen=True)
class Message:
    """What is said, before it takes a channel's form. `links` are addresses by title."""

    subject: str
    sentence: str
    facts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Plain text, for SNS."""
        lines = [self.sentence, ""]
        lines += [f"{title}: {value}" for title, value in {**self.facts, **self.links}.items()]
        return "\n".join(lines)

    @property
    def slack(self) -> str:
        """Slack's mrkdwn, in which three characters are special."""
        lines = [f"*{_slack(self.subject)}*", _slack(self.sentence)]
        lines += [f"{_slack(title)}: `{_slack(value)}`" for title, value in self.facts.items()]
        lines += [" | ".join(f"<{url}|{_slack(title)}>" for title, url in self.links.items())]
        return "\n".join(line for line in lines if line)

    @property
    def html(self) -> str:
        """HTML, for e-mail."""
        facts = "".join(f"<li>{escape(title)}: {escape(value)}</li>" for title, value in self.facts.items())
        links = " | ".join(
            f'<a href="{escape(url)}">{escape(title)}</a>' for title, url in self.links.items()
        )
        return f"<p>{escape(self.sentence)}</p><ul>{facts}</ul><p>{links}</p>"


class RunNotifier(BaseNotifier):
    """Sends one event of a pipeline's runs to every channel of its file.

    A channel that fails is logged; it neither keeps the others from being tried nor fails the run.
    """

    def __init__(self, pipeline: Pipeline, event: Event) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.event = event

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Do nothing: there is no template, and a DAG under `dag.test` could not render one."""

    def notify(self, context: Context) -> None:
        message = self._message(context)
        for channel, send in self._channels(message):
            try:
                send()
            except _failures() as error:
                log.error("No notification by %s: %s: %s", channel, type(error).__name__, error)  # noqa: TRY400
            else:
                log.info("Notified by %s: %s", channel, message.subject)

    def _message(self, context: Context) -> Message:
        if self.event == "approval":
            return approval_message(self.pipeline, context)
        return outcome_message(self.pipeline, context, failed=self.event == "failure")

    def _channels(self, message: Message) -> Iterator[tuple[str, Send]]:
        """The configured channels and how each sends, with its provider imported only then."""
        told = self.pipeline.notifications
        if told.sns:
            yield "SNS", _by_sns(told.sns, message)
        if told.slack:
            yield "Slack", _by_slack(told.slack, message)
        if told.email:
            yield "e-mail", _by_email(told.email, message)


def notifiers(pipeline: Pipeline, event: Event) -> list[Callback] | None:
    """The callbacks for an event; None where the pipeline file names no channel, or not this event.

    None and not an empty list: a DAG with a list, though empty, makes Airflow call its callbacks.
    """
    told = pipeline.notifications
    wanted = event in told.events and (told.sns or told.slack or told.email)
    return [RunNotifier(pipeline, event)] if wanted else None


def outcome_message(pipeline: Pipeline, context: Context, *, failed: bool) -> Message:
    """How the run ended: in the report's words, or by the tasks' states where there is no report."""
    outcome, facts, links = _told_by_report(context) or _told_by_states(context, failed=failed)
    url = run_url(context)
    return Message(
        subject=f"{pipeline.name}: {outcome['label']}",
        sentence=str(outcome["sentence"])[:_LONGEST_SENTENCE],
        facts={"Pipeline": pipeline.name, **facts, "Run": context["run_id"]},
        links={**({"Run in Airflow": url} if url else {}), **links},
    )


def approval_message(pipeline: Pipeline, context: Context) -> Message:
    """That a person is asked, with the gate's sentence and the way to the question."""
    decision = context["ti"].xcom_pull(task_ids=_GATE) or {}
    url = run_url(context)
    task = context["ti"].task_id
    return Message(
        subject=f"{pipeline.name}: waiting for approval",
        sentence=decision.get("sentence", "A model waits to be approved or rejected."),
        facts={"Pipeline": pipeline.name, "Run": context["run_id"]},
        links={"Answer in Airflow": f"{url}/tasks/{task}/required_actions"} if url else {},
    )


def _told_by_report(context: Context) -> tuple[dict[str, Any], dict[str, str], dict[str, str]] | None:
    """Outcome, facts and links from what the task `report` returned; None without it."""
    from airflow.sdk.execution_time.xcom import XCom

    try:
        report = XCom.get_one(
            key="return_value", dag_id=context["dag"].dag_id, task_id=_REPORT, run_id=context["run_id"]
        )
    except _NO_API as error:
        log.info("The run's report cannot be read here: %s", error)
        return None
    if not report:
        return None
    outcome = report["outcome"]
    facts = {"Name": report["run_name"]}
    if outcome["task"]:
        facts["Ended at"] = outcome["task"]
    return outcome, facts, {"Report": report["report_url"]}


def _told_by_states(
    context: Context, *, failed: bool
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """What the tasks' states and their reasons say, or only whether the run failed."""
    default = "The run failed; its tasks' logs have the reason." if failed else "The run succeeded."
    try:
        states = task_states(context)
        why = reasons(context, states)
    except (KeyError, *_NO_API) as error:
        log.info("The tasks' states cannot be read here: %s", error)
        return {"label": "Failed" if failed else "Succeeded", "sentence": default}, {}, {}
    outcome = outcome_of(states, why, gate=None, approval=None, verification=None)
    if outcome.verdict == "unfinished":
        return {"label": "Failed" if failed else "Succeeded", "sentence": default}, {}, {}
    facts = {"Ended at": outcome.task} if outcome.task else {}
    return {"label": outcome.label, "sentence": outcome.sentence}, facts, {}


# Notifiers are told to `notify` instead of being called: calling renders their texts as Jinja templates,
# which an error that quotes a file name is not. The context is empty for the same reason.


def _by_sns(sns: Sns, message: Message) -> Send:
    def send() -> None:
        from airflow.providers.amazon.aws.notifications.sns import SnsNotifier

        subject = message.subject.encode("ascii", "replace").decode()[:_SNS_SUBJECT]
        region = sns.topic_arn.split(":")[3]
        notifier = SnsNotifier(
            aws_conn_id=CONNECTION,
            target_arn=sns.topic_arn,
            message=message.text,
            subject=subject,
            region_name=region,
        )
        notifier.notify(Context())  # type: ignore[no-untyped-call]

    return send


def _by_slack(slack: Slack, message: Message) -> Send:
    def send() -> None:
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        notifier = SlackWebhookNotifier(
            slack_webhook_conn_id=slack.connection, text=message.slack, unfurl_links=False
        )
        notifier.notify(Context())  # type: ignore[no-untyped-call]

    return send


def _by_email(email: Email, message: Message) -> Send:
    def send() -> None:
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        notifier = SmtpNotifier(
            to=email.to,
            from_email=email.sender,
            subject=message.subject,
            html_content=message.html,
            smtp_conn_id=email.connection,
        )
        notifier.notify(Context())

    return send


def _failures() -> tuple[type[Exception], ...]:
    """What sending raises: connections that are missing or wrong, services that refuse or do not answer."""
    from botocore.exceptions import BotoCoreError, ClientError
    from slack_sdk.errors import SlackClientError

    return (
        AirflowException,
        AirflowRuntimeError,
        BotoCoreError,
        ClientError,
        SlackClientError,
        ImportError,
        OSError,
        ValueError,
        TypeError,
    )


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")
