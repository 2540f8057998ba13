"""The report of a run: a record for programs, a page for people, a summary for the task log.

The run may have ended anywhere: whatever a task did not get to is None, and the report says so.
Import inside a task only.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from retraining.aws.clients import Aws
from retraining.aws.s3 import exists, link, read, read_json, write, write_json
from retraining.costs.billing import run_costs
from retraining.costs.estimate import actual_table, duration, money
from retraining.dataset.images import DAMAGED, thumbnail
from retraining.errors import UserError
from retraining.jobs.outputs import archived, output_archive
from retraining.operators.jobs import member
from retraining.planning.deployment import alarms_of
from retraining.planning.evaluation import DOCUMENT
from retraining.reporting.outcome import Outcome, outcome_of
from retraining.reporting.page import Materials, percent, render
from retraining.runs.context import RunLocation

log = logging.getLogger(__name__)

Result = Mapping[str, Any]
Document = dict[str, Any]

_METRICS = "metrics.json"  # in the job's output
_TOOLKIT = "sagemaker_"
_OBJECTIVE = ("tuning", "HyperParameterTuningJobConfig", "HyperParameterTuningJobObjective")
_ROUTING = ("BlueGreenUpdatePolicy", "TrafficRoutingConfiguration")
_RUN_FACTS = ("run_id", "region", "code", "weights")
_THUMBNAIL = 240  # pixels, the longer side
_LARGEST_PICTURE = 4 * 2**20  # bytes; a larger chart stays in S3
_UNREADABLE = (
    ClientError,
    BotoCoreError,
    tarfile.TarError,
    *DAMAGED,
)
_STRATEGIES = {"ALL_AT_ONCE": "all at once", "CANARY": "canary", "LINEAR": "linear"}


def run_report(
    *,
    aws: Aws,
    location: RunLocation,
    plan: Result | None = None,
    dataset: Result | None = None,
    tuning: Result | None = None,
    training: Result | None = None,
    debugger: Result | None = None,
    candidates: Result | None = None,
    evaluation: Result | None = None,
    gate: Result | None = None,
    package: Result | None = None,
    approval: Result | None = None,
    deployment: Result | None = None,
    endpoint: Result | None = None,
    verification: Result | None = None,
    retired: Result | None = None,
    states: Mapping[str, str] | None = None,
    why: Mapping[str, str] | None = None,
    run_url: str | None = None,
) -> Document:
    """Put the tasks' results together, write record and page to the run's folder, and log a summary.

    Every result is its task's; `deployment` is the request that `choose_model` made, `endpoint` what
    `deploy` made of it. `states` are the tasks' states in their order, `why` the reasons of those that
    failed or skipped themselves (`retraining.reporting.outcome`). Returns::

        run_name, pipeline, at, output, run_id, region, code, weights
        outcome         {verdict, label, sentence, task, reason}, as `retraining.reporting.outcome.Outcome`
        tasks           [{task, state, reason}]
        dataset         {uri, classes: [...], images: {train, valid, test}, changes, warnings, report}
        tuning          {job, seconds, objective, best: {...},
                        trials: [{name, status, objective, hyperparameters, seconds}]}
        maximize        whether a larger objective is better
        hyperparameters {lr: "0.034", ...} of the training job
        training        {job, status, seconds, billable_seconds, metrics: {"test:accuracy": 0.58, ...},
                        model_artifact}
        debugger        {mode, rules: [{rule, status, step, finding, ...}], report}
        test_accuracy   the training job's, on the whole test set
        evaluation, gate, package, approval, retired   as the tasks return them
        strategy        {text, alarms: [name]} of the deployment
        endpoint        {name, config, model, status, seconds, created, previous} of `deploy`
        verification    {endpoint, images, accuracy, latency_ms, predictions: [...], ...} of `verify`
        cost            {estimate, actual}, as `retraining.costs.estimate` has them
        record, report, report_url   URIs of record and page, and a link to the page

    Whatever the run did not get to is None.
    Raises UserError where there is no bucket to write to.
    """
    states, why = states or {}, why or {}
    outcome = outcome_of(states, why, gate=gate, approval=approval, verification=verification)
    run: Result = (plan or {}).get("run", {})
    record: Document = {
        "run_name": location.run,
        "pipeline": location.pipeline,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": location.output,
        **{key: run.get(key) for key in _RUN_FACTS},
        "outcome": _outcome(outcome),
        "tasks": [{"task": task, "state": state, "reason": why.get(task)} for task, state in states.items()],
        "dataset": _chosen(dataset, "uri", "classes", "images", "changes", "warnings", "report"),
        "tuning": dict(tuning) if tuning else None,
        "maximize": _maximize(plan),
        "hyperparameters": _hyperparameters(training),
        "training": _chosen(
            training, "job", "status", "seconds", "billable_seconds", "metrics", "model_artifact"
        ),
        "debugger": _chosen(debugger, "mode", "rules", "report"),
        "test_accuracy": training["metrics"].get("test:accuracy") if training else None,
        "evaluation": dict(evaluation) if evaluation else None,
        "gate": dict(gate) if gate else None,
        "package": dict(package) if package else None,
        "approval": dict(approval) if approval else None,
        "strategy": _strategy(deployment or (plan or {}).get("deployment")),
        "endpoint": dict(endpoint) if endpoint else None,
        "verification": dict(verification) if verification else None,
        "retired": dict(retired) if retired else None,
        "cost": {
            "estimate": run.get("cost"),
            "actual": run_costs(
                aws, plan, tuning=tuning, training=training, evaluation=evaluation, candidates=candidates
            ),
        },
        "record": f"{location.output}/run.json",
        "report": f"{location.output}/report.html",
    }
    links = _links(aws, location, dataset, debugger, run_url)
    page = render(record, _materials(aws, training, evaluation, verification, links))
    _write(aws, location, record, page)
    record["report_url"] = link(aws.s3, record["report"])
    for line in summary(record, links).splitlines():
        log.info("%s", line)
    return record


def _write(aws: Aws, location: RunLocation, record: Document, page: str) -> None:
    try:
        write(aws.s3, record["report"], page.encode(), "text/html; charset=utf-8")
        write_json(aws.s3, record["record"], record)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        raise UserError(
            f"There is no bucket {location.bucket} for the run's report. {record['outcome']['sentence']} "
            "Create it, or name another in the form or the pipeline file."
        ) from error


def summary(record: Result, links: Mapping[str, str]) -> str:
    """The run in a few lines of Markdown, with the table of its costs."""
    outcome = record["outcome"]
    lines = [f"## {record['run_name']}: {outcome['label']}", "", outcome["sentence"], ""]
    lines += [f"- **{title}**: {text}" for title, text in _summary_facts(record)]
    lines += [f"- [{title}]({address})" for title, address in links.items()]
    lines += [f"- [Report]({record['report_url']})", ""]
    costs = record["cost"]["actual"]
    return "\n".join(lines + (actual_table(costs).splitlines() if costs["jobs"] else []))


def _summary_facts(record: Result) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    figures = (record["gate"] or {}).get("figures") or {}
    if figures.get("champion"):
        accuracy = {role: percent(figures[role]["accuracy"]) for role in ("challenger", "champion")}
        facts.append(("Accuracy", f"{accuracy['challenger']}, champion {accuracy['champion']}"))
    elif record["test_accuracy"] is not None:
        facts.append(("Accuracy", percent(record["test_accuracy"])))
    if record["hyperparameters"]:
        values = ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items())
        facts.append(("Hyperparameters", values))
    rules = (record["debugger"] or {}).get("rules") or []
    if rules:
        facts.append(("Rules", ", ".join(f"{rule['rule']} {rule['verdict']}" for rule in rules)))
    if record["verification"]:
        verification = record["verification"]
        latency = f"{verification['latency_ms']['median']:.0f} ms"
        facts.append(("Endpoint", f"{verification['endpoint']}, {latency} median"))
    costs, estimate = record["cost"]["actual"], record["cost"]["estimate"]
    if costs["jobs"]:
        bound = f", at most {money(estimate['max_usd'])} by its limits" if estimate else ""
        billed = duration(costs["billable_seconds"])
        facts.append(("Cost at AWS prices", f"{money(costs['usd'])} for {billed}{bound}"))
    return facts


def _outcome(outcome: Outcome) -> Document:
    return {
        "verdict": outcome.verdict,
        "label": outcome.label,
        "sentence": outcome.sentence,
        "task": outcome.task,
        "reason": outcome.reason,
    }


def _chosen(result: Result | None, *keys: str) -> Document | None:
    """These keys of a result, None where it lacks one; None without a result."""
    return {key: result.get(key) for key in keys} if result else None


def _hyperparameters(training: Result | None) -> Document | None:
    if not training:
        return None
    return {k: v for k, v in training["hyperparameters"].items() if not k.startswith(_TOOLKIT)}


def _maximize(plan: Result | None) -> bool:
    objective = member(plan, _OBJECTIVE)
    return not objective or objective["Type"] == "Maximize"


def _strategy(request: Result | None) -> Document:
    """How a DeploymentConfig moves traffic, in words, and the alarms that watch it."""
    config = member(request, ("Endpoint", "DeploymentConfig"))
    routing, names = member(config, _ROUTING), alarms_of(config)
    if not routing:
        return {"text": None, "alarms": names}
    step = routing.get("CanarySize") or routing.get("LinearStepSize")
    unit = {"CAPACITY_PERCENT": "%", "INSTANCE_COUNT": " instances"}
    size = f", {step['Value']}{unit.get(step['Type'], '')} at a time" if step else ""
    bake = f", alarms watch for {duration(routing['WaitIntervalInSeconds'])}"
    return {"text": _STRATEGIES.get(routing["Type"], routing["Type"]) + size + bake, "alarms": names}


def _links(
    aws: Aws, location: RunLocation, dataset: Result | None, debugger: Result | None, run_url: str | None
) -> dict[str, str]:
    """Titles and addresses. A data set that was refused has a page, too, though its task has no result."""
    found = {"Run in Airflow": run_url} if run_url else {}
    refused = location.dataset_report
    pages = {
        "Data set report": dataset.get("report") if dataset else refused if exists(aws.s3, refused) else None,
        "Profiler report": (debugger or {}).get("report"),
    }
    return found | {title: link(aws.s3, uri) for title, uri in pages.items() if uri}


def _materials(
    aws: Aws,
    training: Result | None,
    evaluation: Result | None,
    verification: Result | None,
    links: Mapping[str, str],
) -> Materials:
    """What the page takes from S3; what cannot be read is left out, with a line in the log."""
    folder = str((evaluation or {}).get("output") or "").rstrip("/")
    content = _attempt(f"{folder}/{DOCUMENT}", read_json, aws.s3) if folder else None
    charts = {name: f"{folder}/{name}" for name in (content or {}).get("charts", [])}
    pictures = [answer["image"] for answer in (verification or {}).get("predictions", [])]
    return Materials(
        history=(_attempt(output_archive(training), _history, aws) if training else None) or [],
        evaluation=content,
        charts=_present({name: _attempt(uri, _chart, aws) for name, uri in charts.items()}),
        thumbnails=_present({uri: _attempt(uri, _thumbnail, aws) for uri in pictures}),
        links=links,
    )


def _attempt(uri: str, reading: Callable[[Any, str], Any], source: Any) -> Any:
    """What `reading` makes of an object, or None where that fails: the report has to come out."""
    try:
        return reading(source, uri)
    except _UNREADABLE as error:
        log.warning("%s is left out of the report: %s: %s", uri, type(error).__name__, error)
        return None


def _present(contents: Mapping[str, bytes | None]) -> dict[str, bytes]:
    return {name: content for name, content in contents.items() if content is not None}


def _history(aws: Aws, uri: str) -> list[Document]:
    """The epochs of a training job, from its output archive."""
    content = read(aws.s3, uri)
    metrics = dict(archived(content, _METRICS)).get(_METRICS) if content else None
    history: list[Document] = json.loads(metrics)["history"] if metrics else []
    return history


def _chart(aws: Aws, uri: str) -> bytes | None:
    content = read(aws.s3, uri)
    if content is None or len(content) > _LARGEST_PICTURE:
        log.info("Not in the report: %s is %s", uri, "missing" if content is None else "too large")
        return None
    return content


def _thumbnail(aws: Aws, uri: str) -> bytes | None:
    content = read(aws.s3, uri)
    return None if content is None else thumbnail(content, _THUMBNAIL)
