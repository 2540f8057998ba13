"""A person's word on a model that the gate let through: what is shown, and what the answer means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Result = Mapping[str, Any]

_FIGURES = {
    "accuracy": "Accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "macro_f1": "Macro F1",
    "calibration_error": "Calibration error",
    "latency_ms": "Latency of a picture on the CPU, ms",
    "parameters": "Parameters",
}


def approved_or_skip(approval: Result) -> None:
    """Raises AirflowSkipException, with the decision as its text, for a model that stays out."""
    if not approval["approved"]:
        raise AirflowSkipException(approval["sentence"])


def decision(approved: bool, sentence: str, by: str | None = None, at: str | None = None) -> dict[str, Any]:
    """What the task `approve` returns; `at` in ISO 8601."""
    return {"approved": approved, "sentence": sentence, "by": by, "at": at}


def without_asking(run: Result, gate: Result) -> dict[str, Any] | None:
    """The gate's decision where nobody is to be asked, else None. `run` is the plan's part of that name."""
    if gate["approved"] and run["approval"]:
        return None
    return decision(gate["approved"], gate["sentence"])


def answered(event: Result, gate: Result, approve: str, hours: float | None) -> dict[str, Any]:
    """The decision in an answer of Airflow's human-in-the-loop operator; no answer in time is a no."""
    if event.get("timedout") or event.get("error_type") == "timeout":
        limit = f"within {hours:g} hours" if hours else "in time"
        return decision(False, f"The challenger stays out: nobody answered {limit}.")
    user = event.get("responded_by_user") or {}
    by = user.get("name") or user.get("id") or "somebody"
    at = event["responded_at"].isoformat(timespec="seconds")
    if approve in event["chosen_options"]:
        return decision(True, f"Approved by {by}. {gate['sentence']}", by, at)
    return decision(False, f"The challenger stays out: {by} rejected it. The gate had let it pass.", by, at)


def subject(run: Result, package: Result) -> str:
    """The headline of the request."""
    return f"Put version {package['version']} of {package['group']} into service at {run['endpoint']}?"


def body(run: Result, gate: Result, debugger: Result | None, s3: S3Client) -> str:
    """The comparison as Markdown: figures, classes that lose most, rules, cost, and links to the charts."""
    parts = [
        gate["sentence"],
        _figures(gate["figures"]),
        _classes(gate["figures"]),
        _rules(debugger),
        _cost(run),
        _charts(gate, s3),
    ]
    return "\n\n".join(part for part in parts if part)


def _figures(figures: Result) -> str:
    champion = figures["champion"] or {}
    rows = [
        (title, _number(champion.get(name)), _number(figures["challenger"][name]))
        for name, title in _FIGURES.items()
    ]
    return _table(("", "champion", "challenger"), rows)


def _classes(figures: Result) -> str:
    rows = [
        (row["class"], str(row["support"]), _number(row["champion"]), _number(row["challenger"]))
        for row in figures["worst_breeds"]
    ]
    title = "Recall of the classes that lose most" if figures["champion"] else "Lowest recall"
    return f"**{title}**\n\n" + _table(("class", "pictures", "champion", "challenger"), rows) if rows else ""


def _rules(debugger: Result | None) -> str:
    rows = [
        (rule["rule"], rule["status"], rule["policy"], rule["finding"] or rule["details"] or "")
        for rule in (debugger["rules"] if debugger else [])
    ]
    return "**Debugger rules**\n\n" + _table(("rule", "status", "policy", "finding"), rows) if rows else ""


def _cost(run: Result) -> str:
    from retraining.costs.estimate import money

    cost = run["cost"]
    monthly = money(cost["endpoint"]["usd_per_month"])
    return f"This run may cost {money(cost['max_usd'])} by its limits; the endpoint costs {monthly} a month."


def _charts(gate: Result, s3: S3Client) -> str:
    from retraining.aws.s3 import link

    links = [
        f"[{uri.rpartition('/')[2].removesuffix('.png').replace('_', ' ')}]({link(s3, uri, 'image/png')})"
        for uri in gate["charts"]
    ]
    return f"Charts, for up to seven days: {', '.join(links)}" if links else ""


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that does not end its cell or its row."""
    return " ".join(text.replace("|", "\\|").split())


def _number(value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
