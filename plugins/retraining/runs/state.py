"""What a pipeline's last successful run leaves to the next one, as one document in S3.

It holds the fingerprint that tells an unchanged run from a changed one, the data set's manifest, the tuning
job that the next search may start from, the best hyperparameters and the costs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from retraining.aws.clients import Aws
from retraining.aws.s3 import read_json, write_json
from retraining.config.params import RunSettings
from retraining.config.pipeline import Pipeline
from retraining.runs.context import RunLocation
from retraining.runs.naming import run_stamp

log = logging.getLogger(__name__)

FORMAT_VERSION = 1

# What changes neither model nor service, so that a run with another value of it would be the same run.
_NOT_OF_THE_RESULT: Mapping[str, Any] = {
    "description": True,
    "schedule": True,
    "owner": True,
    "notifications": True,
    "retire": True,
    "max_cost_usd": True,
    "prices": True,
    "job": {"spot", "max_spot_wait_seconds"},
}
_NOT_OF_THE_RESULT_IN_FORM = frozenset({"force", "max_cost_usd", "spot"})


def last_run(aws: Aws, location: RunLocation) -> dict[str, Any] | None:
    """What the last run left, or None where there is nothing, or nothing that this version reads.

    For a run that left it itself, and is repeated, it is what the run before left: it must not compare itself
    with itself.
    """
    document = _newest(aws, location)
    if document is not None and document["run"] == location.run:
        before: dict[str, Any] | None = document.get("before")
        return before
    return document


def _newest(aws: Aws, location: RunLocation) -> dict[str, Any] | None:
    uri = _uri(location)
    try:
        document = read_json(aws.s3, uri)
    except ValueError:
        log.warning("%s is not readable; this run begins as the first one does", uri)
        return None
    if document is not None and document.get("format_version") != FORMAT_VERSION:
        log.warning("%s is of another version; this run begins as the first one does", uri)
        return None
    known: dict[str, Any] | None = document
    return known


def remember(
    *,
    aws: Aws,
    location: RunLocation,
    plan: Mapping[str, Any],
    tuning: Mapping[str, Any] | None,
    approval: Mapping[str, Any],
    costs: Mapping[str, Any],
) -> dict[str, Any]:
    """Write what the next run needs to know of this one. A run that did not tune passes the last search on.

    A run that is repeated after a later one leaves the later one's memory as it is.
    Returns the document: `{run, at, fingerprint, dataset, search, live, outcome, costs, before}`, where
    `before` is the document of the run before, without its own.
    """
    run, before = plan["run"], last_run(aws, location)
    earlier = before or {}
    document = {
        "format_version": FORMAT_VERSION,
        "run": run["name"],
        "run_id": run["run_id"],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": run["fingerprint"],
        "dataset": run["dataset"],
        "search": _search(run, tuning) if tuning else earlier.get("search"),
        "live": bool(approval["approved"]) or bool(earlier.get("live")),
        "outcome": approval["sentence"],
        "costs": dict(costs),
        "before": {**before, "before": None} if before else None,
    }
    if before and run_stamp(before["run"]) > run_stamp(location.run):
        log.warning("The later run %s has left its memory already, which stays", before["run"])
        return document
    log.info("The next run compares itself with this one: %s", write_json(aws.s3, _uri(location), document))
    return document


def fingerprint(
    pipeline: Pipeline, settings: RunSettings, dataset: Mapping[str, Any], *, code: str, weights: str | None
) -> dict[str, str]:
    """Digests (SHA-256, 16 hex digits) of what decides a run's result, by what each stands for.

    `code` is the digest of the source archive; `weights` URI and ETag of the weights.
    """
    of_file = pipeline.model_dump(mode="json", exclude=_NOT_OF_THE_RESULT)
    of_form = {k: v for k, v in asdict(settings).items() if k not in _NOT_OF_THE_RESULT_IN_FORM}
    return {
        "data": str(dataset["digest"])[:16],
        "code": code,
        "weights": _digest(weights),
        "configuration": _digest([of_file, of_form]),
    }


def changes(current: Mapping[str, str], last: Mapping[str, Any] | None) -> list[str]:
    """Which parts of the fingerprint differ from the last run's; all of them where there was none."""
    earlier = (last or {}).get("fingerprint", {})
    return [part for part, digest in current.items() if earlier.get(part) != digest]


def _search(run: Mapping[str, Any], tuning: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "job": tuning["job"],
        "run": run["name"],
        "model": run["model"],
        "data": run["fingerprint"]["data"],
        "code": run["fingerprint"]["code"],
        "weights": run["fingerprint"]["weights"],
        "objective": tuning["best"]["objective"],
        "hyperparameters": dict(tuning["best"]["hyperparameters"]),
    }


def _uri(location: RunLocation) -> str:
    return location.shared_uri("last_run.json")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
