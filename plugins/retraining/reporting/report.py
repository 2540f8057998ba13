"""The report of a run: a record for programs, a page for people, a summary for the task log.

The run may have ended anywhere: what it did not reach is None in the record and left out of the page.
Import inside a task only.
"""

from __future__ import annotations

import json
import logging
import tarfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from retraining.aws.clients import Aws
from retraining.aws.responses import member
from retraining.aws.s3 import exists, link, read, write, write_json
from retraining.costs.billing import actual_cost, cost_table
from retraining.dataset.images import thumbnail
from retraining.errors import UserError
from retraining.evaluation.document import EvaluationDocument, read_evaluation
from retraining.formatting import duration, money, percent
from retraining.jobs.logs import archived, output_archive
from retraining.planning.deployment import alarms_of
from retraining.reporting.charts import Epoch
from retraining.reporting.outcome import outcome_of
from retraining.reporting.page import Materials, render
from retraining.runs.context import RunLocation
from retraining.runs.results import (
    DatasetResult,
    DebuggerResult,
    Plan,
    ReportedDataset,
    ReportedRules,
    ReportedTraining,
    RunReport,
    RunResults,
    Strategy,
    TrainingResult,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_METRICS = "metrics.json"  # in the job's output
_TOOLKIT = "sagemaker_"  # hyperparameters that begin so are SageMaker's own
_THUMBNAIL = 240  # pixels, the longer side
_LARGEST_CHART = 4 * 2**20  # bytes; a larger one stays in S3
_UNREADABLE = (ClientError, BotoCoreError, tarfile.TarError, ValueError)
_STRATEGIES = {"ALL_AT_ONCE": "all at once", "CANARY": "canary", "LINEAR": "linear"}


def run_report(
    aws: Aws,
    location: RunLocation,
    results: RunResults,
    *,
    states: Mapping[str, str],
    reasons: Mapping[str, str],
    run_url: str | None,
) -> RunReport:
    """Write the run's record and page to its folder in S3, and log a summary.

    `states` are the tasks' states in their order, `reasons` say why tasks failed or skipped themselves
    (`retraining.reporting.outcome`); `run_url` is the run's page in Airflow.
    Raises UserError if the bucket does not exist.
    """
    plan, training, dataset = results.get("plan"), results.get("training"), results.get("dataset")
    debugger, run = results.get("debugger"), plan["run"] if plan else None
    page_uri = f"{location.output}/report.html"
    report: RunReport = {
        "run_name": location.run,
        "pipeline": location.pipeline,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "output": location.output,
        "run_id": run["run_id"] if run else None,
        "region": run["region"] if run else None,
        "code": run["code"] if run else None,
        "weights": run["weights"] if run else None,
        "outcome": outcome_of(states, reasons, results).facts,
        "tasks": [
            {"task": task, "state": state, "reason": reasons.get(task)} for task, state in states.items()
        ],
        "dataset": _reported_dataset(dataset) if dataset else None,
        "tuning": results.get("tuning"),
        "maximize": _maximize(plan),
        "hyperparameters": _hyperparameters(training) if training else None,
        "training": _reported_training(training) if training else None,
        "debugger": _reported_rules(debugger) if debugger else None,
        "test_accuracy": training["metrics"].get("test:accuracy") if training else None,
        "evaluation": results.get("evaluation"),
        "gate": results.get("gate"),
        "package": results.get("package"),
        "approval": results.get("approval"),
        "strategy": _strategy(plan),
        "endpoint": results.get("endpoint"),
        "verification": results.get("verification"),
        "retired": results.get("retired"),
        "cost": {"estimate": run["cost"] if run else None, "actual": actual_cost(aws, results)},
        "record": f"{location.output}/run.json",
        "report": page_uri,
        "report_url": link(aws.s3, page_uri),
    }
    links = dict(_links(aws, location, report, run_url))
    _write(aws, location, report, render(report, _materials(aws, results, links)))
    for line in summary(report, links).splitlines():
        log.info("%s", line)
    return report


def summary(report: RunReport, links: Mapping[str, str]) -> str:
    """The run in a few lines of Markdown, with the table of its costs."""
    outcome = report["outcome"]
    lines = [f"## {report['run_name']}: {outcome['label']}", "", outcome["sentence"], ""]
    lines += [f"- **{title}**: {text}" for title, text in _summary_facts(report)]
    lines += [f"- [{title}]({address})" for title, address in links.items()]
    lines += [f"- [Report]({report['report_url']})", ""]
    costs = report["cost"]["actual"]
    return "\n".join(lines + (cost_table(costs).splitlines() if costs["jobs"] else []))


def _summary_facts(report: RunReport) -> Iterator[tuple[str, str]]:
    gate, verification = report["gate"], report["verification"]
    if gate and (champion := gate["figures"]["champion"]):
        challenger = percent(gate["figures"]["challenger"]["accuracy"])
        yield "Accuracy", f"{challenger}, champion {percent(champion['accuracy'])}"
    elif report["test_accuracy"] is not None:
        yield "Accuracy", percent(report["test_accuracy"])
    if report["hyperparameters"]:
        values = [f"{name} {value}" for name, value in report["hyperparameters"].items()]
        yield "Hyperparameters", ", ".join(values)
    if report["debugger"] and report["debugger"]["rules"]:
        verdicts = [f"{rule['rule']} {rule['verdict']}" for rule in report["debugger"]["rules"]]
        yield "Rules", ", ".join(verdicts)
    if verification:
        latency = verification["latency_ms"]["median"]
        yield "Endpoint", f"{verification['endpoint']}, median latency {latency:.0f} ms"
    costs, estimate = report["cost"]["actual"], report["cost"]["estimate"]
    if costs["jobs"]:
        bound = f", at most {money(estimate['max_usd'])} by its limits" if estimate else ""
        billed = duration(costs["billable_seconds"])
        yield "Cost at AWS prices", f"{money(costs['usd'])} for {billed}{bound}"


def _write(aws: Aws, location: RunLocation, report: RunReport, page: str) -> None:
    record = {key: value for key, value in report.items() if key != "report_url"}
    try:
        write(aws.s3, report["report"], page.encode(), "text/html; charset=utf-8")
        write_json(aws.s3, report["record"], record)
    except aws.s3.exceptions.NoSuchBucket as error:
        raise UserError(
            f"There is no bucket {location.bucket} for the run's report. {report['outcome']['sentence']} "
            "Create it, or name another in the form or the pipeline file."
        ) from error


def _reported_dataset(dataset: DatasetResult) -> ReportedDataset:
    return {
        "uri": dataset["uri"],
        "classes": dataset["classes"],
        "images": dataset["images"],
        "changes": dataset["changes"],
        "warnings": dataset["warnings"],
        "report": dataset["report"],
    }


def _reported_training(training: TrainingResult) -> ReportedTraining:
    return {
        "job": training["job"],
        "status": training["status"],
        "seconds": training["seconds"],
        "billable_seconds": training["billable_seconds"],
        "metrics": training["metrics"],
        "model_artifact": training["model_artifact"],
    }


def _reported_rules(debugger: DebuggerResult) -> ReportedRules:
    return {"mode": debugger["mode"], "rules": debugger["rules"], "report": debugger["report"]}


def _hyperparameters(training: TrainingResult) -> dict[str, str]:
    return {k: v for k, v in training["hyperparameters"].items() if not k.startswith(_TOOLKIT)}


def _maximize(plan: Plan | None) -> bool:
    """Whether a larger objective is better."""
    path = ("tuning", "HyperParameterTuningJobConfig", "HyperParameterTuningJobObjective", "Type")
    return member(plan, *path) in {None, "Maximize"}


def _strategy(plan: Plan | None) -> Strategy:
    config = member(plan, "deployment", "Endpoint", "DeploymentConfig")
    routing = member(config, "BlueGreenUpdatePolicy", "TrafficRoutingConfiguration")
    names = alarms_of(config)
    if not routing:
        return {"text": None, "alarms": names}
    step = routing.get("CanarySize") or routing.get("LinearStepSize")
    unit = {"CAPACITY_PERCENT": "%", "INSTANCE_COUNT": " instances"}
    size = f", {step['Value']}{unit.get(step['Type'], '')} at a time" if step else ""
    bake = f", alarms watch for {duration(routing['WaitIntervalInSeconds'])}"
    return {"text": _STRATEGIES.get(routing["Type"], routing["Type"]) + size + bake, "alarms": names}


def _links(
    aws: Aws, location: RunLocation, report: RunReport, run_url: str | None
) -> Iterator[tuple[str, str]]:
    """Titles and addresses. A rejected dataset has a report, too, though its task has no result."""
    if run_url:
        yield "Run in Airflow", run_url
    if report["dataset"] or exists(aws.s3, location.dataset_report):
        yield "Dataset report", link(aws.s3, location.dataset_report)
    if report["debugger"] and report["debugger"]["report"]:
        yield "Profiler report", link(aws.s3, report["debugger"]["report"])


def _materials(aws: Aws, results: RunResults, links: Mapping[str, str]) -> Materials:
    """What the page shows from S3; what cannot be read is left out, with a line in the log."""
    training, evaluation = results.get("training"), results.get("evaluation")
    verification, document, charts = results.get("verification"), None, {}
    if evaluation:
        document = _read_or_none(partial(_document, aws), evaluation["output"])
    if evaluation and document:
        charts = {name: f"{evaluation['output']}/{name}" for name in document["charts"]}
    images = [prediction["image"] for prediction in verification["predictions"]] if verification else []
    return Materials(
        history=(_read_or_none(partial(_history, aws), output_archive(training)) if training else None) or [],
        evaluation=document,
        charts=_read_all(partial(_chart, aws), charts),
        thumbnails=_read_all(partial(_thumbnail, aws), {uri: uri for uri in images}),
        links=links,
    )


def _read_all(reader: Callable[[str], bytes | None], uris: Mapping[str, str]) -> dict[str, bytes]:
    contents = {name: _read_or_none(reader, uri) for name, uri in uris.items()}
    return {name: content for name, content in contents.items() if content is not None}


def _read_or_none(reader: Callable[[str], T | None], uri: str) -> T | None:
    """The object as `reader` returns it, or None where that fails: the report must not fail with it."""
    try:
        return reader(uri)
    except _UNREADABLE as error:
        log.warning("%s is left out of the report: %s: %s", uri, type(error).__name__, error)
        return None


def _document(aws: Aws, folder: str) -> EvaluationDocument | None:
    return read_evaluation(aws.s3, folder)


def _history(aws: Aws, uri: str) -> list[Epoch]:
    """The epochs of a training job, from its output archive."""
    content = read(aws.s3, uri)
    metrics = dict(archived(content, _METRICS)).get(_METRICS) if content else None
    history: list[Epoch] = json.loads(metrics)["history"] if metrics else []
    return history


def _chart(aws: Aws, uri: str) -> bytes | None:
    content = read(aws.s3, uri)
    if content is None or len(content) > _LARGEST_CHART:
        log.info("Not in the report: %s is %s", uri, "missing" if content is None else "too large")
        return None
    return content


def _thumbnail(aws: Aws, uri: str) -> bytes | None:
    content = read(aws.s3, uri)
    return None if content is None else thumbnail(content, _THUMBNAIL)
