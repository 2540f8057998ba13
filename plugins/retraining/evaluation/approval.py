"""A person's approval of a model that the gate let pass: the request for it, and what the response means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from retraining.aws.s3 import link
from retraining.formatting import money
from retraining.runs.results import (
    ApprovalResult,
    DebuggerResult,
    Decision,
    GateFigures,
    GateResult,
    ModelFigures,
    PackageResult,
    RunFacts,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def approved_or_skip(approval: ApprovalResult) -> None:
    """Raises AirflowSkipException, with the decision as its text, for a model that stays out."""
    if not approval["approved"]:
        raise AirflowSkipException(approval["sentence"])


def without_asking(run: RunFacts, gate: Decision) -> ApprovalResult | None:
    """The gate's decision if nobody is to be asked, else None."""
    if gate["approved"] and (run["approval"] or gate["ask"]):
        return None
    return _decision(gate["approved"], gate["sentence"])


def decision_of(
    event: Mapping[str, Any], gate: Decision, approve_option: str, hours: float | None
) -> ApprovalResult:
    """The decision in an event of Airflow's human-in-the-loop operator; no response in time is a no."""
    if event.get("timedout") or event.get("error_type") == "timeout":
        limit = f"within {hours:g} hours" if hours else "in time"
        return _decision(False, f"The challenger stays out: nobody responded {limit}.")
    user = event.get("responded_by_user") or {}
    by = user.get("name") or user.get("id") or "somebody"
    at = event["responded_at"].isoformat(timespec="seconds")
    if approve_option in event["chosen_options"]:
        return _decision(True, f"Approved by {by}. {gate['sentence']}", by, at)
    return _decision(False, f"The challenger stays out: {by} rejected it. The gate had let it pass.", by, at)


def subject(run: RunFacts, package: PackageResult) -> str:
    """The headline of the request."""
    return f"Put version {package['version']} of {package['group']} into service at {run['endpoint']}?"


def body(run: RunFacts, gate: GateResult, debugger: DebuggerResult | None, s3: S3Client) -> str:
    """The comparison in Markdown: figures, weakest classes, Debugger rules, cost, and links to the charts."""
    parts = [
        gate["sentence"],
        _figures(gate["figures"]),
        _classes(gate["figures"]),
        _rules(debugger),
        _cost(run),
        _charts(gate, s3),
    ]
    return "\n\n".join(part for part in parts if part)


def _decision(approved: bool, sentence: str, by: str | None = None, at: str | None = None) -> ApprovalResult:
    return {"approved": approved, "sentence": sentence, "by": by, "at": at}


def _figures(figures: GateFigures) -> str:
    champion = _cells(figures["champion"]) if figures["champion"] else {}
    rows = [
        (title, champion.get(title, "none"), cell) for title, cell in _cells(figures["challenger"]).items()
    ]
    return _table(("", "champion", "challenger"), rows)


def _cells(model: ModelFigures) -> dict[str, str]:
    return {
        "Accuracy": _number(model["accuracy"]),
        "Top-5 accuracy": _number(model["top5_accuracy"]),
        "Macro F1": _number(model["macro_f1"]),
        "Calibration error": _number(model["calibration_error"]),
        "Latency of an image on the CPU, ms": _number(model["latency_ms"]),
        "Parameters": _number(model["parameters"]),
    }


def _classes(figures: GateFigures) -> str:
    rows = [
        (row["class"], str(row["support"]), _number(row["champion"]), _number(row["challenger"]))
        for row in figures["weakest_classes"]
    ]
    title = "Recall of the classes that lose most" if figures["champion"] else "Lowest recall"
    return f"**{title}**\n\n" + _table(("class", "images", "champion", "challenger"), rows) if rows else ""


def _rules(debugger: DebuggerResult | None) -> str:
    rows = [
        (rule["rule"], rule["status"], rule["policy"], rule["finding"] or rule["details"] or "")
        for rule in (debugger["rules"] if debugger else [])
    ]
    return "**Debugger rules**\n\n" + _table(("rule", "status", "policy", "finding"), rows) if rows else ""


def _cost(run: RunFacts) -> str:
    cost = run["cost"]
    limit, monthly = money(cost["max_usd"]), money(cost["endpoint"]["usd_per_month"])
    return f"By its limits, this run costs {limit} at most; the endpoint costs {monthly} a month."


def _charts(gate: GateResult, s3: S3Client) -> str:
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
