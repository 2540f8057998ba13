"""A run's results in one document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]

_TOOLKIT = "sagemaker_"


def run_report(
    *,
    plan: Result,
    dataset: Result,
    tuning: Result | None,
    training: Result,
    debugger: Result,
    verification: Result,
) -> dict[str, Any]:
    """Put the tasks' results together.

    Returns::

        run_name, run_id, pipeline, region, output, code, weights
        dataset         {uri, classes: [...], images: {train, valid, test}}
        tuning          {job, seconds, objective, best: {...},
                        trials: [{name, status, objective, hyperparameters, seconds}]}
                        or None for a run that skipped it
        hyperparameters {lr: "0.034", ...} of the training job
        training        {job, status, seconds, billable_seconds, metrics: {"test:accuracy": 0.58, ...},
                        model_artifact}
        debugger        {mode, rules: [{rule, status, step, finding, ...}], report}, as `debugger_result` does
        test_accuracy   the training job's, on the whole test set
        endpoint        {endpoint, images, accuracy, trained_accuracy, latency_ms, predictions: [...]},
                        as `verify_endpoint` returns it
    """
    run = plan["run"]
    return {
        "run_name": run["name"],
        **{key: run[key] for key in ("run_id", "pipeline", "region", "output", "code", "weights")},
        "dataset": {key: dataset[key] for key in ("uri", "classes", "images")},
        "tuning": dict(tuning) if tuning else None,
        "hyperparameters": {
            k: v for k, v in training["hyperparameters"].items() if not k.startswith(_TOOLKIT)
        },
        "training": {
            key: training[key]
            for key in ("job", "status", "seconds", "billable_seconds", "metrics", "model_artifact")
        },
        "debugger": {key: debugger[key] for key in ("mode", "rules", "report")},
        "test_accuracy": training["metrics"].get("test:accuracy"),
        "endpoint": dict(verification),
    }
