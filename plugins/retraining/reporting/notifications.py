"""Notifications that a run ended, or that it waits for a person, to the channels of the pipeline file.

A `RunNotifier` is a callback of a DAG, which Airflow calls in the DAG processor, or a notifier of the
approval operator, called in the task. Cheap to import, because a DAG file does; Airflow's providers for SNS,
Slack and e-mail are imported when a notification is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from retraining.aws.clients import CLIENT_CONFIG, CONNECTION
from retraining.config.pipeline import Pipeline
from retraining.config.sections import Email, Slack, Sns
from retraining.reporting.outcome import failure_reasons, outcome_of, run_url, task_states
from retraining.runs.results import GateResult, OutcomeFacts, RunReport

log = logging.getLogger(__name__)

Event = Literal["success", "failure", "approval"]
Callback = Callable[[Context], None]
Send = Callable[[], None]

_REPORT, _GATE = "report", "gate"
_SNS_SUBJECT = 100  # characters; SNS accepts no more, and only ASCII
_LONGEST_SENTENCE = 1500
_NO_API = (ImportError, NameError, AirflowRuntimeError)
"""Raised by requests for XComs or states where there is no API, as in a callback under `dag.test`."""


@dataclass(frozen=True)
class Message:
    """A notification, before it is formatted for a channel. `links` are addresses by title."""

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
        """Slack's mrkdwn."""
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

    If a channel fails, that is logged; the other channels are still used, and the run does not fail.
    """

    def __init__(self, pipeline: Pipeline, event: Event) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.event = event

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Do nothing: there are no templates, and a DAG under `dag.test` cannot render any."""

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
        """The configured channels, each with the function that sends the message."""
        channels = self.pipeline.notifications
        if channels.sns:
            yield "SNS", _by_sns(channels.sns, message)
        if channels.slack:
            yield "Slack", _by_slack(channels.slack, message)
        if channels.email:
            yield "e-mail", _by_email(channels.email, message)


def notifiers(pipeline: Pipeline, event: Event) -> list[Callback] | None:
    """The callbacks for an event; None if the pipeline file names no channel, or not this event.

    Not an empty list, because Airflow schedules callbacks for a DAG that has a list at all.
    """
    channels = pipeline.notifications
    wanted = event in channels.events and (channels.sns or channels.slack or channels.email)
    return [RunNotifier(pipeline, event)] if wanted else None


def outcome_message(pipeline: Pipeline, context: Context, *, failed: bool) -> Message:
    """How the run ended: from its report or, without one, from its tasks' states."""
    report = _report(context)
    outcome = report["outcome"] if report else _outcome_of_states(context)
    label = "Failed" if failed else "Succeeded"
    sentence = "The run failed; its tasks' logs have the reason." if failed else "The run succeeded."
    url = run_url(context)
    return Message(
        subject=f"{pipeline.name}: {outcome['label'] if outcome else label}",
        sentence=outcome["sentence"][:_LONGEST_SENTENCE] if outcome else sentence,
        facts={
            "Pipeline": pipeline.name,
            **({"Name": report["run_name"]} if report else {}),
            **({"Ended at": outcome["task"]} if outcome and outcome["task"] else {}),
            "Run": context["run_id"],
        },
        links={
            **({"Run in Airflow": url} if url else {}),
            **({"Report": report["report_url"]} if report else {}),
        },
    )


def approval_message(pipeline: Pipeline, context: Context) -> Message:
    """The request for a person's approval, with the gate's sentence and a link to respond."""
    decision: GateResult | None = context["ti"].xcom_pull(task_ids=_GATE)
    url = run_url(context)
    task = context["ti"].task_id
    return Message(
        subject=f"{pipeline.name}: waiting for approval",
        sentence=decision["sentence"] if decision else "A model waits to be approved or rejected.",
        facts={"Pipeline": pipeline.name, "Run": context["run_id"]},
        links={"Respond in Airflow": f"{url}/tasks/{task}/required_actions"} if url else {},
    )


def _report(context: Context) -> RunReport | None:
    """What the task `report` returned; None without it."""
    from airflow.sdk.execution_time.xcom import XCom

    try:
        report: RunReport | None = XCom.get_one(
            key="return_value", dag_id=context["dag"].dag_id, task_id=_REPORT, run_id=context["run_id"]
        )
    except _NO_API as error:
        log.info("The run's report cannot be read here: %s", error)
        return None
    return report


def _outcome_of_states(context: Context) -> OutcomeFacts | None:
    """The outcome by the tasks' states and reasons; None where they cannot be read or do not tell."""
    try:
        states = task_states(context)
        outcome = outcome_of(states, failure_reasons(context, states), {})
    except (KeyError, *_NO_API) as error:
        log.info("The tasks' states cannot be read here: %s", error)
        return None
    return None if outcome.verdict == "unfinished" else outcome.facts


def _by_sns(sns: Sns, message: Message) -> Send:
    def send() -> None:
        from airflow.providers.amazon.aws.hooks.sns import SnsHook  # its notifier takes no configuration
        from botocore.config import Config

        region = sns.topic_arn.split(":")[3]
        hook = SnsHook(  # type: ignore[no-untyped-call]
            aws_conn_id=CONNECTION, region_name=region, config=Config(**CLIENT_CONFIG)
        )
        subject = message.subject.encode("ascii", "replace").decode()[:_SNS_SUBJECT]
        hook.publish_to_target(target_arn=sns.topic_arn, message=message.text, subject=subject)

    return send


# Airflow's notifiers are not called, but their method `notify` is: a call would render the texts as Jinja
# templates, and a text with an error's message is no template. The context is empty for the same reason.


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
    """Raised by missing or wrong connections, and by services that refuse or do not respond."""
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
