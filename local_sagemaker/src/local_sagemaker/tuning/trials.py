"""A tuning job's trials: their records, and the summaries, counters and best training job of the API.

A trial's record is in the tuning job's document under `_trials`. It is written before the training job is
created, and gets its `Summary` when the training job has ended.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from local_sagemaker.store import Document, Store
from local_sagemaker.tuning.plans import Definition, Objective
from local_sagemaker.tuning.search import Trial

TRAINING_KIND = "training-job"

Record = dict[str, Any]
Summary = dict[str, Any]

_ENDED = frozenset({"Completed", "Failed", "Stopped"})
_COUNTER = {
    "InProgress": "InProgress",
    "Stopping": "InProgress",
    "Completed": "Completed",
    "Failed": "NonRetryableError",
    "Stopped": "Stopped",
}
_IMPROVEMENT = 0.01  # the least improvement (API reference, HyperParameterTuningJobCompletionDetails)


def new_record(job: Document, number: int, definition: int, values: Mapping[str, str]) -> Record:
    """A trial's record. Its training job is `<tuning job>-<number>-<8 hex>`, also after a restart."""
    digest = hashlib.sha256(f"{job['HyperParameterTuningJobArn']} {job['CreationTime']} {number}".encode())
    name = f"{job['HyperParameterTuningJobName']}-{number:03d}-{digest.hexdigest()[:8]}"
    return {"Number": number, "TrainingJobName": name, "Definition": definition, "Values": dict(values)}


def training_request(job: Document, record: Record, definition: Definition) -> dict[str, Any]:
    """The CreateTrainingJob request of a trial.

    Each trial has its own folder of checkpoints; in a shared one it would resume from another trial's.
    """
    item = dict(definition.request)
    name = record["TrainingJobName"]
    request = {
        "TrainingJobName": name,
        "HyperParameters": {**definition.static, **record["Values"]},
        "ResourceConfig": _resource_config(item),
        "Tags": job.get("_tags", []),
    }
    passed_on = item.keys() - {
        "DefinitionName",
        "TuningObjective",
        "HyperParameterRanges",
        "StaticHyperParameters",
        "HyperParameterTuningResourceConfig",
    }
    request = {**{member: item[member] for member in passed_on}, **request}
    if "CheckpointConfig" in item:
        uri = f"{item['CheckpointConfig']['S3Uri'].rstrip('/')}/{name}"
        request["CheckpointConfig"] = {**item["CheckpointConfig"], "S3Uri": uri}
    return request


def _resource_config(item: Mapping[str, Any]) -> dict[str, Any]:
    """The ResourceConfig of a definition; of several instance configurations, the first."""
    if "ResourceConfig" in item:
        return dict(item["ResourceConfig"])
    flexible = dict(item["HyperParameterTuningResourceConfig"])
    flexible.pop("AllocationStrategy", None)
    choices = flexible.pop("InstanceConfigs", None)
    return {**flexible, **(choices[0] if choices else {})}


def reports(store: Store, record: Record, objective: Objective) -> list[float]:
    """The objective metric's values so far, in order."""
    return [value for _, value, _ in store.metrics(record["TrainingJobName"], objective.metric)]


def summarise(store: Store, record: Record, definition: Definition) -> Summary | None:
    """The HyperParameterTrainingJobSummary of a trial; None while it has no training job yet."""
    if "Summary" in record:
        frozen: Summary = record["Summary"]
        return frozen
    training = store.get(TRAINING_KIND, record["TrainingJobName"])
    if training is None:
        return None
    summary = {
        member: training[member]
        for member in (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingStartTime",
            "TrainingEndTime",
            "TrainingJobStatus",
            "FailureReason",
        )
        if training.get(member) is not None
    }
    summary["TunedHyperParameters"] = record["Values"]
    if definition.name is not None:
        summary["TrainingJobDefinitionName"] = definition.name
    return summary | _objective_members(training, definition)


def _objective_members(training: Document, definition: Definition) -> Summary:
    """Whether the objective counts: never for a failed job, but with its last value for a stopped one."""
    status = training["TrainingJobStatus"]
    metric = _final_metric(training, definition)
    if status not in _ENDED:
        outcome = "Pending"
    else:
        outcome = "Failed" if metric is None or status == "Failed" else "Succeeded"
    if metric is None:
        return {"ObjectiveStatus": outcome}
    return {"ObjectiveStatus": outcome, "FinalHyperParameterTuningJobObjectiveMetric": metric}


def _final_metric(training: Document, definition: Definition) -> dict[str, Any] | None:
    """The objective metric's last value so far."""
    final = {item["MetricName"]: item["Value"] for item in training.get("FinalMetricDataList", [])}
    name = definition.objective.metric
    if name not in final:
        return None
    metric = {"MetricName": name, "Value": final[name]}
    if definition.name is not None:
        metric["Type"] = "Maximize" if definition.objective.maximize else "Minimize"
    return metric


def never_created(arn: str, record: Record, now: float, status: str, reason: str) -> Summary:
    """The summary of a trial whose training job was refused, or was never started because of a stop."""
    return {
        "TrainingJobName": record["TrainingJobName"],
        "TrainingJobArn": arn,
        "CreationTime": now,
        "TrainingEndTime": now,
        "TrainingJobStatus": status,
        "FailureReason": reason[:1024],
        "TunedHyperParameters": record["Values"],
        "ObjectiveStatus": "Failed",
    }


def has_ended(summary: Summary) -> bool:
    return summary["TrainingJobStatus"] in _ENDED


def succeeded(summary: Summary) -> bool:
    return bool(summary["ObjectiveStatus"] == "Succeeded")


def objective_value(summary: Summary) -> float:
    """The final objective of a trial that has one."""
    value: float = summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    return value


def seen_by_optimiser(record: Record, definition: Definition) -> Trial:
    """The trial for `search.propose`, with static hyperparameters, because a warm start may tune them."""
    values = {**definition.static, **record["Values"]}
    summary = record.get("Summary")
    if summary is None:
        return Trial(values, running=True)
    if not succeeded(summary):
        return Trial(values)
    stopped_after = record.get("Reports") if summary["TrainingJobStatus"] == "Stopped" else None
    return Trial(values, objective_value(summary), stopped_after=stopped_after)


def status_counters(summaries: Iterable[Summary]) -> dict[str, int]:
    counters = dict.fromkeys(("Completed", "InProgress", "RetryableError", "NonRetryableError", "Stopped"), 0)
    for summary in summaries:
        counters[_COUNTER[summary["TrainingJobStatus"]]] += 1
    return counters


def objective_counters(summaries: Iterable[Summary]) -> dict[str, int]:
    counters = dict.fromkeys(("Succeeded", "Pending", "Failed"), 0)
    for summary in summaries:
        counters[summary["ObjectiveStatus"]] += 1
    return counters


def best(summaries: Iterable[Summary], *, maximize: bool) -> Summary | None:
    """The trial with the best final objective, the earliest of several; None if no trial succeeded."""
    sign = 1 if maximize else -1
    return max(filter(succeeded, summaries), key=lambda item: sign * objective_value(item), default=None)


def not_improving(summaries: Iterable[Summary], *, maximize: bool) -> int:
    """The number of trials that ended since the last one that was more than 1 % better than all before it."""
    sign = 1 if maximize else -1
    ended = sorted(filter(succeeded, summaries), key=lambda item: item.get("TrainingEndTime", 0.0))
    best_so_far, count = -math.inf, 0
    for value in (sign * objective_value(item) for item in ended):
        if best_so_far == -math.inf or value > best_so_far + _IMPROVEMENT * abs(best_so_far):
            best_so_far, count = value, 0
        else:
            count += 1
    return count
